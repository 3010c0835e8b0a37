"""The adapted linear layer, ``y = W x + s B R A x`` with only R trainable."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.autograd.function import once_differentiable

from fedft.adapters import frozen
from fedft.adapters.interface import AdapterLayer
from fedft.errors import Code, FedftError


class PerSampleSink(Protocol):
    """Takes what per-sample gradients are made of, in the backward pass, in place of a matrix's gradient."""

    def record(self, layer: Any, u: Tensor, v: Tensor) -> None:
        """Receive ``u`` ``(batch, tokens, q)`` and ``v`` ``(batch, tokens, p)`` of a layer's use.

        The layer's ``per_sample_parameter`` is (p, q); sample i's gradient of it is ``v[i]ᵀ u[i]``. ``batch``
        is the first dimension of the layer's input. The parameter's own gradient is left alone.
        """


class SquareFrame(Protocol):
    """What the layer needs of a frame."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the weight."""

    @property
    def scale(self) -> float:
        """The factor s."""

    @property
    def a(self) -> Tensor:
        """The matrix A, ``(r, in)``."""

    @property
    def b(self) -> Tensor:
        """The matrix B, ``(out, r)``."""

    @property
    def r0(self) -> Tensor:
        """What R starts from, ``(r, r)`` float32."""


class InputProjection(Protocol):
    """Computes ``u = A x`` for layers that read the same input."""

    def project(self, layer: AdaptedLinear, x: Tensor) -> Tensor | None:
        """Return u, ``(n, r)``, or None when the layer is to compute it alone."""


class AdaptedLinear(AdapterLayer):
    """A frozen linear module with a square adapter: ``y = W x + s B R A x`` (LoRA-SB, arXiv 2411.19557).

    Args:
        base: ``nn.Linear``, transformers' ``Conv1D`` or a ``FrozenLinear``; its weight is never changed.
        frame: its A and B become buffers in the dtype that the base computes in; R starts at R0, float32.

    Attributes:
        R: ``(r, r)`` float32, the only trainable parameter.
        A: ``(r, in)``. B: ``(out, r)``, already multiplied by s.
        per_sample_sink: when set, backward hands (u, v) to it and computes no gradient of R.
        shared: when set, gives u for layer number ``slot`` of those that read the same input.

    Raises:
        FedftError: FEDFT-2110 (module), FEDFT-2114 (frame of another shape); forward: FEDFT-2120 (autocast).

    """

    R: nn.Parameter
    A: Tensor
    B: Tensor

    def __init__(self, base: nn.Module, frame: SquareFrame) -> None:
        super().__init__()
        shape = frozen.shape_of(base)
        if shape != frame.shape:
            raise FedftError(
                Code.FRAME_SHAPE_MISMATCH, f"frame for a weight of {frame.shape} on a module of {shape}"
            )
        self.out_features, self.in_features = shape
        dtype, device = frozen.placement(base)
        self.base = base
        self.register_buffer("A", frame.a.to(device, dtype), persistent=False)
        self.register_buffer("B", (frame.scale * frame.b).to(device, dtype), persistent=False)
        self.R = nn.Parameter(frame.r0.to(device, copy=True))
        self.per_sample_sink: PerSampleSink | None = None
        self.shared: InputProjection | None = None
        self.slot = 0

    @property
    def per_sample_parameter(self) -> nn.Parameter:
        """What the sink's u and v give the gradient of: R."""
        return self.R

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return R, which goes by the name of its module."""
        return {"": self.R}

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
        u = None if self.shared is None else self.shared.project(self, x)
        return _AdaptedMatmul.apply(x, self.R, self, u)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        """Show the rank."""
        return f"rank={self.R.shape[0]}"


class _AdaptedMatmul(torch.autograd.Function):
    """Keeps for backward only ``u = A x``, ``(..., r)``, beyond the frozen matrices and R."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, R: Tensor, layer: AdaptedLinear, u: Tensor | None) -> Tensor:
        if u is None:
            u = x.reshape(-1, x.shape[-1]) @ layer.A.T
        y = layer.base(x).reshape(-1, layer.out_features)
        # R = 0 must leave every bit of y alone, and y + (+0) would turn -0 into +0. On the CPU a look at R
        # costs nothing. On an accelerator it would wait for the device, and a trace cannot branch on it;
        # there sums start from +0, so that y - u(-R)ᵀBᵀ is y - (+0) = y.
        if R.is_cuda or torch.compiler.is_compiling() or is_fake(R) or R.any():
            y.addmm_(u @ -R.to(u.dtype).T, layer.B.T, alpha=-1)
        ctx.layer, ctx.x_shape = layer, x.shape
        ctx.save_for_backward(u if ctx.needs_input_grad[1] else None, R)
        # No view of another tensor: some models add to it in place.
        result: Tensor = y.view(*x.shape[:-1], layer.out_features).detach()
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        layer: AdaptedLinear = ctx.layer
        u, R = ctx.saved_tensors
        g = grad.reshape(-1, layer.out_features)
        v = g @ layer.B
        grad_x = grad_R = None
        if ctx.needs_input_grad[0]:
            grad_x = frozen.input_gradient(layer.base, g)
            grad_x = grad_x.addmm_(v @ R.to(v.dtype), layer.A).view(ctx.x_shape)
        if ctx.needs_input_grad[1] and layer.per_sample_sink is not None:
            samples = (ctx.x_shape[0], math.prod(ctx.x_shape[1:-1]), R.shape[0])
            layer.per_sample_sink.record(layer, u.view(samples), v.view(samples))
        elif ctx.needs_input_grad[1]:
            grad_R = v.to(R.dtype).T @ u.to(R.dtype)
        return grad_x, grad_R, None, None
