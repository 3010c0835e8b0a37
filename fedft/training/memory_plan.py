"""Peak memory of a training step, estimated by running the step on tensors without memory.

The model is built and trained for one step as fake tensors, which have shapes but no storage, while every
storage that comes and goes is counted: what autograd keeps, logits, gradients and temporaries alike. So an
architecture needs no formula of its own.
"""

from __future__ import annotations

import warnings
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

from fedft.adapters import AdapterLayer
from fedft.adapters.frozen import shape_of
from fedft.adapters.linear import AdaptedLinear
from fedft.adapters.shared_input import share_inputs
from fedft.errors import Code, FedftError
from fedft.quant import QuantFormat, QuantisedLinear, quantisable

_OPTIMISER_STATES = 2  # AdamW: two float32 numbers beside each parameter and its gradient


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes during one training step of one client.

    Attributes:
        weights: of the frozen model.
        frames: the frozen matrices of every adapter, in the compute dtype.
        trainable: what is trained with its gradient and AdamW's state, float32; with privacy the per-sample
            gradients too.
        workspace: the buffer that quantised weights are dequantised into.
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
    layer: Callable[[nn.Module, int], AdapterLayer],
    rank: int,
    batch: int,
    tokens: int,
    format: QuantFormat | None,
    private: bool = False,
    checkpointing: bool = False,
) -> MemoryPlan:
    """Estimate the peak memory of a training step with adapters and AdamW.

    Args:
        make_model: builds the transformers model from its configuration, in the dtype of the arithmetic; it
            is called where tensors have no memory.
        targets: gives the names of the modules to adapt.
        layer: puts an adapter of a rank on a module (``Method.planned_layer``).
        rank: r.
        batch: samples in one forward pass.
        tokens: length of every sample.
        format: that the body's linear layers are stored in; None: dense.
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
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that compare where their buffers lie
            return _plan(make_model(), targets, layer, rank, batch, tokens, format, private, checkpointing)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FedftError(
            Code.MEMORY_PLAN_IMPOSSIBLE, f"this model's step cannot be planned: {error}"
        ) from error


def _plan(
    model: Any,
    targets: Callable[[nn.Module], Sequence[str]],
    layer: Callable[[nn.Module, int], AdapterLayer],
    rank: int,
    batch: int,
    tokens: int,
    format: QuantFormat | None,
    private: bool,
    checkpointing: bool,
) -> MemoryPlan:
    model.requires_grad_(False).train()
    if checkpointing:
        _checkpoint(model)
    names = list(targets(model))
    if format is not None:
        _without_weights(model, format)
    weights = _stored(model)
    adapters = _adapt(model, names, layer, rank)
    ids = torch.zeros(batch, tokens, dtype=torch.int64)
    with _Counter() as counter:
        _loss(model(input_ids=ids).logits).backward()
    numbers = sum(p.numel() for module in adapters for p in module.trainable().values())
    return MemoryPlan(
        weights=weights,
        frames=sum(buffer.nbytes for module in adapters for buffer in module.buffers(recurse=False)),
        trainable=4 * numbers * (2 + _OPTIMISER_STATES + (batch if private else 0)),
        workspace=max(
            (layer.stored.workspace(layer.compute_dtype) for layer in _quantised(model)), default=0
        ),
        activations=counter.peak - 4 * numbers,  # the gradients are counted as trainable
    )


def _checkpoint(model: Any) -> None:
    # Renamed in transformers 5; the old name goes in 6.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _loss(logits: Tensor) -> Tensor:
    """Cross-entropy in float32, at every position of a language model."""
    flat = logits.float().flatten(0, -2)
    return F.cross_entropy(flat, torch.zeros(len(flat), dtype=torch.int64))


def _without_weights(model: nn.Module, format: QuantFormat) -> None:
    """Replace what would be quantised by layers of the same size and no content."""
    for name in quantisable(model):
        module: Any = model.get_submodule(name)
        parent, _, child = name.rpartition(".")
        layer = QuantisedLinear(format, format.empty(shape_of(module)), module.bias, module.weight.dtype)
        setattr(model.get_submodule(parent), child, layer)


def _adapt(
    model: nn.Module, names: Sequence[str], layer: Callable[[nn.Module, int], AdapterLayer], rank: int
) -> list[AdapterLayer]:
    """Put the adapters of a run on the model."""
    layers = {}
    for name in names:
        module = model.get_submodule(name)
        parent, _, child = name.rpartition(".")
        layers[name] = layer(module, rank)
        setattr(model.get_submodule(parent), child, layers[name])
    share_inputs({name: module for name, module in layers.items() if isinstance(module, AdaptedLinear)})
    return list(layers.values())


def _stored(model: nn.Module) -> int:
    """Bytes of all parameters, buffers and quantised weights, each storage once."""
    tensors: Iterable[Tensor] = [*model.parameters(), *model.buffers()]
    storages = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) + sum(layer.stored.nbytes for layer in _quantised(model))


def _quantised(model: nn.Module) -> list[QuantisedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantisedLinear)]


class _Counter(TorchDispatchMode):
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
