"""Peak memory of a training step, estimated by running the step on tensors without memory.

The model is built and trained for one step as fake tensors, which have shapes but no storage, while every
storage that comes and goes is counted: what autograd keeps, logits, gradients and temporaries alike. So an
architecture needs no formula of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.pytorch_utils import Conv1D

from fedft.errors import Code, FedftError
from fedft.quant.codebook import BLOCK, NESTED_BLOCK
from fedft.quant.linear import NF4Linear
from fedft.quant.model import quantisable
from fedft.quant.weight import NF4Weight

_OPTIMISER_STATES = 2  # AdamW: two float32 numbers beside each parameter and its gradient


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes during one training step of one client.

    Attributes:
        weights: of the frozen model.
        frames: A and B of every adapted layer, in the compute dtype.
        trainable: R with its gradient and AdamW's state, float32; with privacy the per-sample gradients too.
        workspace: the buffer that NF4 weights are dequantised into.
        activations: the most that forward and backward hold at a time besides all that: activations kept for
            backward, logits, temporaries.

    """

    weights: int
    frames: int
    trainable: int
    workspace: int
    activations: int

    @property
    def peak(self) -> int:
        """The sum: what the step needs at its worst moment."""
        return self.weights + self.frames + self.trainable + self.workspace + self.activations


def plan_memory(
    make_model: Callable[[], nn.Module],
    targets: Callable[[nn.Module], Sequence[str]],
    *,
    rank: int,
    batch: int,
    tokens: int,
    quantised: bool,
    private: bool = False,
    checkpointing: bool = False,
) -> MemoryPlan:
    """Estimate the peak memory of a training step with square adapters and AdamW.

    Args:
        make_model: builds the transformers model from its configuration, in the dtype of the arithmetic; it
            is called where tensors have no memory.
        targets: gives the names of the modules to adapt.
        rank: r.
        batch: samples in one forward pass.
        tokens: length of every sample.
        quantised: whether the body's linear layers are stored in NF4.
        private: whether per-sample gradients are kept, as differentially private training does.
        checkpointing: whether the model recomputes activations, layer by layer.

    Raises:
        FedftError: FEDFT-9015 when the step cannot be traced, or a number is below 1.

    """
    if min(rank, batch, tokens) < 1:
        raise FedftError(
            Code.MEMORY_PLAN_IMPOSSIBLE, f"rank {rank}, batch {batch} and tokens {tokens} must be at least 1"
        )
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return _plan(make_model(), targets, rank, batch, tokens, quantised, private, checkpointing)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FedftError(
            Code.MEMORY_PLAN_IMPOSSIBLE, f"this model's step cannot be planned: {error}"
        ) from error


def _plan(
    model: Any,
    targets: Callable[[nn.Module], Sequence[str]],
    rank: int,
    batch: int,
    tokens: int,
    quantised: bool,
    private: bool,
    checkpointing: bool,
) -> MemoryPlan:
    model.requires_grad_(False).train()
    if checkpointing:
        _checkpoint(model)
    names = list(targets(model))
    if quantised:
        _without_weights(model)
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, _Adapter(model.get_submodule(name), rank))
    ids = torch.zeros(batch, tokens, dtype=torch.int64)
    with _Counter() as counter:
        _loss(model(input_ids=ids).logits).backward()  # type: ignore[no-untyped-call]
    adapters = [module for module in model.modules() if isinstance(module, _Adapter)]
    numbers = sum(module.R.numel() for module in adapters)
    return MemoryPlan(
        weights=_stored(model) - sum(m.R.nbytes + m.A.nbytes + m.B.nbytes for m in adapters),
        frames=sum(module.A.nbytes + module.B.nbytes for module in adapters),
        trainable=4 * numbers * (2 + _OPTIMISER_STATES + (batch if private else 0)),
        workspace=max((_dense_bytes(m) for m in model.modules() if isinstance(m, NF4Linear)), default=0),
        activations=counter.peak - 4 * numbers,  # R's gradient is counted as trainable
    )


def _checkpoint(model: Any) -> None:
    # Renamed in transformers 5; the old name goes in 6.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _loss(logits: Tensor) -> Tensor:
    """Cross-entropy in float32, at every position of a language model."""
    flat = logits.float().flatten(0, -2)
    return F.cross_entropy(flat, torch.zeros(len(flat), dtype=torch.int64))


def _without_weights(model: nn.Module) -> None:
    """Replace what would be quantised by layers of the same size and no content."""
    for name in quantisable(model):
        module: Any = model.get_submodule(name)
        shape = tuple(module.weight.T.shape if isinstance(module, Conv1D) else module.weight.shape)
        count = shape[0] * shape[1]
        blocks = -(-count // BLOCK)
        weight = NF4Weight(
            packed=torch.empty((count + 1) // 2, dtype=torch.uint8),
            absmax=torch.empty(blocks, dtype=torch.uint8),
            absmax2=torch.empty(-(-blocks // NESTED_BLOCK)),
            code=torch.empty(256),
            offset=0.0,
            shape=shape,
            dtype=torch.bfloat16,
        )
        parent, _, child = name.rpartition(".")
        layer = NF4Linear(weight, module.bias, module.weight.dtype)
        setattr(model.get_submodule(parent), child, layer)


def _dense_bytes(layer: NF4Linear) -> int:
    return layer.out_features * layer.in_features * layer.compute_dtype.itemsize


def _stored(model: nn.Module) -> int:
    """Bytes of all parameters, buffers and NF4 weights, each storage once."""
    tensors: Iterable[Tensor] = [*model.parameters(), *model.buffers()]
    storages = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}
    packed = sum(module.nf4.nbytes for module in model.modules() if isinstance(module, NF4Linear))
    return sum(storages.values()) + packed


class _Adapter(nn.Module):
    """Stands for an adapted layer: the same operations on the same shapes, and the same tensors kept."""

    def __init__(self, base: Any, rank: int) -> None:
        super().__init__()
        self.base = base
        out_features, in_features = _shape(base)
        dtype = base.compute_dtype if isinstance(base, NF4Linear) else base.weight.dtype
        self.R = nn.Parameter(torch.empty(rank, rank))
        self.register_buffer("A", torch.empty(rank, in_features, dtype=dtype))
        self.register_buffer("B", torch.empty(out_features, rank, dtype=dtype))

    A: Tensor
    B: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """As ``AdaptedLinear``."""
        return _AdaptedStep.apply(x, self.R, self)  # type: ignore[no-any-return, no-untyped-call]


class _AdaptedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, R: Tensor, layer: _Adapter) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        u = rows @ layer.A.T
        y = layer.base(x).reshape(-1, layer.B.shape[0])
        y.addmm_(u @ R.to(u.dtype).T, layer.B.T)
        ctx.layer, ctx.x_shape = layer, x.shape
        ctx.save_for_backward(u, R)
        result: Tensor = y.view(*x.shape[:-1], -1)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        layer: _Adapter = ctx.layer
        u, R = ctx.saved_tensors
        g = grad.reshape(-1, layer.B.shape[0])
        v = g @ layer.B
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_gradient(layer.base, g).addmm_(v @ R.to(v.dtype), layer.A).view(ctx.x_shape)
        return grad_x, v.to(R.dtype).T @ u.to(R.dtype), None


def _shape(base: Any) -> tuple[int, int]:
    if isinstance(base, NF4Linear):
        return base.out_features, base.in_features
    rows, columns = base.weight.shape
    return (columns, rows) if isinstance(base, Conv1D) else (rows, columns)


def _input_gradient(base: Any, grad: Tensor) -> Tensor:
    if isinstance(base, NF4Linear):
        return base.input_gradient(grad)
    weight: Tensor = base.weight.T if isinstance(base, Conv1D) else base.weight
    return grad @ weight


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages made inside that are still alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), given)
        return result

    def _add(self, storage: Any, given: set[int]) -> None:
        key = id(storage)
        if key in given or key in self._known:
            return
        size = storage.nbytes()

        def gone(_: object) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)
