"""Weight-only int8: one byte a weight and one scale for each output, in plain torch operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedft.errors import Code, FedftError
from fedft.quant.interface import QuantFormat, StoredWeight

_LARGEST = 127


@dataclass(frozen=True, eq=False)
class Int8Weight(StoredWeight):
    """``W[i, j] = codes[i, j] * scale[i]`` with ``scale[i] = max_j |W[i, j]| / 127``.

    The vector-wise absmax quantisation of LLM.int8 (arXiv 2208.07339, section 2.1) for the weights alone.

    Attributes:
        codes: ``(out, in)`` int8, from -127 to 127.
        scale: ``(out,)`` float32, finite and not negative.

    """

    codes: Tensor
    scale: Tensor

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """Shape (out, in)."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the parts lie."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.scale.nbytes

    def workspace(self, dtype: torch.dtype) -> int:
        """Return 0: the dense matrix is a temporary of each product."""
        return 0

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """Return the matrix, ``(out, in)``, rounded once from float32."""
        return (self.codes.float() * self.scale[:, None]).to(dtype)

    def matmul(self, x: Tensor, *, transposed: bool, bias: Tensor | None = None) -> Tensor:
        """Return ``x Wᵀ + bias`` (``transposed``) or ``x W`` with the dequantised matrix."""
        result: Tensor = _Matmul.apply(x, self, transposed)  # type: ignore[no-untyped-call]
        return result if bias is None else result + bias

    def to(self, device: torch.device | str) -> Self:
        """Return the same weight on a device."""
        return replace(self, codes=self.codes.to(device), scale=self.scale.to(device))

    def state(self) -> dict[str, Tensor]:
        """Return the codes and ``scale``."""
        return {"": self.codes, Int8.marker: self.scale}


class Int8(QuantFormat):
    """Eight bits a weight, one scale for each output."""

    name = "int8"
    title = "int8"
    marker = "int8_scale"

    def quantise(self, weight: Tensor) -> Int8Weight:
        """Round to the nearest code, ties to even, from the matrix's bfloat16 values."""
        if weight.dim() != 2 or not weight.is_floating_point():
            raise FedftError(
                Code.WEIGHT_NOT_QUANTISABLE, f"{weight.dtype} {tuple(weight.shape)} is no matrix of floats"
            )
        # From bfloat16 whatever the checkpoint's dtype: one base, one digest, for every client.
        values = weight.detach().to(torch.bfloat16).float()
        if not bool(torch.isfinite(values).all()):
            raise FedftError(
                Code.WEIGHT_NOT_QUANTISABLE, "a weight to be quantised holds a value that is not finite"
            )
        scale = values.abs().amax(dim=1) / _LARGEST if values.numel() else values.new_zeros(len(values))
        codes = (values / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
        return Int8Weight(codes.clamp(-_LARGEST, _LARGEST).to(torch.int8), scale)

    def empty(self, shape: tuple[int, int]) -> Int8Weight:
        """Return a weight of this size."""
        return Int8Weight(torch.empty(shape, dtype=torch.int8), torch.empty(shape[0]))

    def read(self, state: Mapping[str, Tensor]) -> Int8Weight:
        """Read codes and scales; every number is checked."""
        codes, scale = state.get(""), state.get(self.marker)
        if codes is None or scale is None or codes.dtype != torch.int8 or codes.dim() != 2:
            raise FedftError(Code.QUANTISED_WEIGHT_INVALID, "not an int8 weight with its scales")
        good = scale.dtype == torch.float32 and scale.shape == codes.shape[:1]
        if not good or not bool((torch.isfinite(scale) & (scale >= 0)).all()):
            raise FedftError(Code.QUANTISED_WEIGHT_INVALID, "the scales of an int8 weight do not fit it")
        if codes.numel() and int(codes.min()) < -_LARGEST:
            raise FedftError(Code.QUANTISED_WEIGHT_INVALID, "an int8 weight holds the code -128")
        return Int8Weight(codes, scale)


class _Matmul(torch.autograd.Function):
    """Keeps no dense matrix for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Int8Weight, transposed: bool) -> Tensor:
        ctx.weight, ctx.transposed = weight, transposed
        dense = weight.dequantise(x.dtype)
        return x @ (dense.T if transposed else dense)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        dense = ctx.weight.dequantise(grad.dtype)
        return grad @ (dense if ctx.transposed else dense.T), None, None


INT8 = Int8()
