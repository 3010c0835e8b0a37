"""The LoRA layer, ``y = W x + s B A x``, with B trained, and A too or frozen."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedft.adapters import frozen
from fedft.adapters.interface import AdapterLayer
from fedft.adapters.linear import PerSampleSink
from fedft.errors import Code, FedftError


class LoraLinear(AdapterLayer):
    """A frozen linear module with two factors beside it: ``y = W x + s B A x`` (LoRA, arXiv 2106.09685).

    Args:
        base: ``nn.Linear``, transformers' ``Conv1D`` or a ``FrozenLinear``; its weight is never changed.
        a: ``(r, in)`` float32, what A starts from. B starts at zero.
        scale: s.
        train_a: whether A is trained; a frozen one is kept in the dtype that the base computes in.

    Attributes:
        A: ``(r, in)``. B: ``(out, r)`` float32, trained.
        per_sample_sink: when set, backward hands what B's per-sample gradients are made of to it and computes
            no gradient of B. Where A is trained too, its per-sample gradients are not defined here.

    Raises:
        FedftError: FEDFT-2110 (module); forward: FEDFT-2120 (autocast).

    """

    A: Tensor
    B: nn.Parameter

    def __init__(self, base: nn.Module, a: Tensor, *, scale: float, train_a: bool) -> None:
        super().__init__()
        self.out_features, self.in_features = frozen.shape_of(base)
        dtype, device = frozen.placement(base)
        self.base, self.scale, self.trains_a = base, scale, train_a
        if train_a:
            self.A = nn.Parameter(a.to(device, copy=True))
        else:
            self.register_buffer("A", a.to(device, dtype), persistent=False)
        self.B = nn.Parameter(torch.zeros(self.out_features, len(a), device=device))
        self.per_sample_sink: PerSampleSink | None = None

    @property
    def per_sample_parameter(self) -> nn.Parameter:
        """What the sink's u and v give the gradient of: B."""
        return self.B

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the trained factors."""
        factors = {"lora_B": self.B}
        return {"lora_A": self.A, **factors} if isinstance(self.A, nn.Parameter) else factors

    @property
    def weight(self) -> Tensor:
        """The base's weight: model code reads its dtype or device."""
        return self.base.weight  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``, in the dtype of x."""
        if torch.is_autocast_enabled(x.device.type):
            raise FedftError(
                Code.AUTOCAST_UNSUPPORTED,
                "an adapted layer was called under autocast",
                hint="set model.dtype",
            )
        return _LoraMatmul.apply(x, self.A, self.B, self)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        """Show the rank, and what is trained."""
        return f"rank={len(self.A)}, trained={'A and B' if self.trains_a else 'B'}"


class _LoraMatmul(torch.autograd.Function):
    """Keeps for backward ``u = A x``, ``(..., r)``, and the input only where A is trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor, B: Tensor, layer: LoraLinear) -> Tensor:
        rows = x.reshape(-1, layer.in_features)
        u = rows @ A.to(x.dtype).T
        y = layer.base(x).reshape(-1, layer.out_features)
        y.addmm_(u, B.to(u.dtype).T, alpha=layer.scale)
        ctx.layer, ctx.x_shape = layer, x.shape
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, u, A, B)
        # No view of another tensor: some models add to it in place.
        result: Tensor = y.view(*x.shape[:-1], layer.out_features).detach()
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        layer: LoraLinear = ctx.layer
        rows, u, A, B = ctx.saved_tensors
        g = grad.reshape(-1, layer.out_features)
        v = layer.scale * (g @ B.to(g.dtype))
        grad_x = grad_A = grad_B = None
        if ctx.needs_input_grad[0]:
            grad_x = frozen.input_gradient(layer.base, g).addmm_(v, A.to(v.dtype)).view(ctx.x_shape)
        if ctx.needs_input_grad[1]:
            grad_A = v.to(A.dtype).T @ rows.to(A.dtype)
        if ctx.needs_input_grad[2] and layer.per_sample_sink is not None:
            samples = (ctx.x_shape[0], math.prod(ctx.x_shape[1:-1]), -1)
            layer.per_sample_sink.record(layer, u.view(samples), (layer.scale * g).view(samples))
        elif ctx.needs_input_grad[2]:
            grad_B = layer.scale * (g.to(B.dtype).T @ u.to(B.dtype))
        return grad_x, grad_A, grad_B, None
