"""Per-sample gradients of everything that is trained, from one ordinary backward pass.

For an adapted layer y = W x + s B R A x, sample i's gradient of R is Vᵢᵀ Uᵢ with u = A x and v = s Bᵀ g for
each token: an r × r product in place of a gradient of W's size. A trained `nn.Linear` (a classification head)
gives Gᵢᵀ Xᵢ and the column sums of Gᵢ. Both are taken inside an autograd function that hands no gradient to
the parameter itself, so a gradient that reaches a parameter any other way shows, and is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fedft.errors import Code, FedftError


@runtime_checkable
class PerSampleLayer(Protocol):
    """A layer with one trained matrix (p, q) that can hand out what its per-sample gradients are made of.

    With u (batch, tokens, q) and v (batch, tokens, p), sample i's gradient is v[i]ᵀ u[i].
    """

    per_sample_sink: Any

    @property
    def per_sample_parameter(self) -> nn.Parameter:
        """The trained matrix."""


class PerSampleGradients:
    """Collects per-sample gradients of a model's trainable parameters while attached to it.

    Rows have the parameters one after the other in the order of `parameters`, each flattened.

    Args:
        model: with adapters attached, and trained heads that are plain `nn.Linear`.

    Attributes:
        parameters: every trainable parameter by name.
        dimension: length d of a row.

    Raises:
        FedftError: FEDFT-8401 (a trainable parameter this cannot cover), FEDFT-8409 (one parameter in two
            places), FEDFT-8405 (batch normalisation).

    """

    def __init__(self, model: nn.Module) -> None:
        refuse_batch_norm(model)
        self.parameters = _trainable(model)
        layers = [module for module in model.modules() if isinstance(module, PerSampleLayer)]
        self._layers = [layer for layer in layers if layer.per_sample_parameter.requires_grad]
        self._heads = [m for m in model.modules() if type(m) is nn.Linear and _trained(m)]
        self._columns: dict[int, slice] = {}
        self.dimension = 0
        for parameter in self.parameters.values():
            self._columns[id(parameter)] = slice(self.dimension, self.dimension + parameter.numel())
            self.dimension += parameter.numel()
        self._refuse_uncovered()
        self._names = {id(module): name for name, module in model.named_modules()}
        self._rows: Tensor | None = None
        self._recorded: set[int] = set()

    def attach(self) -> None:
        """Divert the parameters' gradients to this collector."""
        for layer in self._layers:
            layer.per_sample_sink = self
        for head in self._heads:
            head.forward = functools.partial(_head_forward, self, head)  # type: ignore[method-assign]

    def detach(self) -> None:
        """Give the model its ordinary backward pass again."""
        for layer in self._layers:
            layer.per_sample_sink = None
        for head in self._heads:
            head.__dict__.pop("forward", None)

    def backward(self, losses: Tensor) -> Tensor:
        """Run one backward pass and return (batch, d) float32 gradients, one row for each loss.

        Args:
            losses: (batch,), row i a function of sample i alone.

        Raises:
            FedftError: FEDFT-8402 (a layer used twice), FEDFT-8408 (a layer saw another batch size),
                FEDFT-8404 (a gradient reached a parameter around the layers).

        """
        self._recorded.clear()
        device = next(iter(self.parameters.values())).device
        self._rows = torch.empty(len(losses), self.dimension, device=device)
        losses.sum().backward()
        self._refuse_strays()
        rows, self._rows = self._rows, None
        for key, columns in self._columns.items():
            if key not in self._recorded:
                rows[:, columns] = 0.0
        return rows

    def columns(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return (k,) int64: which entries of a row belong to these parameters, in their order."""
        slices = [self._columns[id(parameter)] for parameter in parameters]
        return torch.cat([torch.arange(part.start, part.stop) for part in slices])

    def write(self, flat: Tensor) -> None:
        """Make a (d,) vector the gradient of the parameters."""
        for parameter in self.parameters.values():
            part = flat[self._columns[id(parameter)]].view_as(parameter)
            parameter.grad = part.to(parameter.device, parameter.dtype)

    def record(self, layer: PerSampleLayer, u: Tensor, v: Tensor) -> None:
        """Take u (batch, tokens, q) and v (batch, tokens, p) from an adapted layer's backward pass."""
        block = self._block(layer.per_sample_parameter, layer, len(u))
        torch.bmm(v.float().mT, u.float(), out=block)

    def record_head(self, head: nn.Linear, x: Tensor, grad: Tensor) -> None:
        """Take a head's input (batch, ..., in) and its output's gradient (batch, ..., out)."""
        x, grad = (t.reshape(len(t), -1, t.shape[-1]).float() for t in (x, grad))
        if head.weight.requires_grad:
            torch.bmm(grad.mT, x, out=self._block(head.weight, head, len(x)))
        if head.bias is not None and head.bias.requires_grad:
            torch.sum(grad, dim=1, out=self._block(head.bias, head, len(x)))

    def _block(self, parameter: Tensor, module: object, batch: int) -> Tensor:
        """Return the view of the rows where `parameter`'s gradients go, (batch, *parameter.shape)."""
        name = self._names[id(module)]
        if self._rows is None:
            raise FedftError(
                Code.SAMPLES_DEPENDENT, f"{name}: a backward pass that the private step did not start"
            )
        if id(parameter) in self._recorded:
            raise FedftError(
                Code.LAYER_REUSED,
                f"layer {name} was used twice in one forward pass",
                hint="its per-sample gradient would be a sum over uses; leave this layer out of the targets",
            )
        if batch != len(self._rows):
            raise FedftError(
                Code.BATCH_SIZE_MISMATCH,
                f"layer {name} saw {batch} rows in a batch of {len(self._rows)} samples",
            )
        self._recorded.add(id(parameter))
        return self._rows[:, self._columns[id(parameter)]].view(batch, *parameter.shape)

    def _refuse_uncovered(self) -> None:
        covered = {id(layer.per_sample_parameter) for layer in self._layers}
        covered |= {id(parameter) for head in self._heads for parameter in head.parameters()}
        missing = [name for name, parameter in self.parameters.items() if id(parameter) not in covered]
        if missing or not self.parameters:
            raise FedftError(
                Code.NO_PER_SAMPLE_GRADIENT,
                f"no per-sample gradients for {', '.join(missing) or 'a model without trainable parameters'}",
                hint="train adapters and plain linear heads, freeze the rest",
            )

    def _refuse_strays(self) -> None:
        strays = [name for name, parameter in self.parameters.items() if parameter.grad is not None]
        if strays:
            raise FedftError(
                Code.SAMPLES_DEPENDENT,
                f"a gradient reached {', '.join(strays)} around the layer it belongs to",
                hint="no penalty on parameters in the loss; clear gradients before the private step",
            )


class _HeadMatmul(torch.autograd.Function):
    """A linear map that hands out its per-sample gradients and gives its parameters none."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sink: PerSampleGradients, head: nn.Linear
    ) -> Tensor:
        ctx.sink, ctx.head = sink, head
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x, weight = ctx.saved_tensors
        ctx.sink.record_head(ctx.head, x, grad)
        return (grad @ weight if ctx.needs_input_grad[0] else None), None, None, None, None


def _head_forward(sink: PerSampleGradients, head: nn.Linear, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return F.linear(x, head.weight, head.bias)
    return _HeadMatmul.apply(x, head.weight, head.bias, sink, head)  # type: ignore[no-any-return, no-untyped-call]


def _trainable(model: nn.Module) -> Mapping[str, nn.Parameter]:
    found: dict[str, nn.Parameter] = {}
    names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        if id(parameter) in names:
            raise FedftError(
                Code.PARAMETER_SHARED,
                f"{names[id(parameter)]} and {name} are one trainable parameter in two places",
                hint="untie or freeze it: a gradient through one place would be missed",
            )
        names[id(parameter)] = name
        found[name] = parameter
    return found


def _trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def refuse_batch_norm(model: nn.Module) -> None:
    """Raise FEDFT-8405 if a layer mixes the samples of a batch."""
    mixing = nn.modules.batchnorm._BatchNorm
    found = [name for name, module in model.named_modules() if isinstance(module, mixing)]
    if found:
        raise FedftError(
            Code.BATCH_NORMALISATION,
            f"{', '.join(found)} mixes the samples of a batch, so no sample's influence is bounded",
            hint="use layer or group normalisation",
        )
