"""Ternary vectors as two bit planes: a bit for +1, a bit for -1, eight elements a byte, lowest bit first.

Each function runs a compiled kernel where there is one and plain torch otherwise; the bits are the same.
An element whose bit is set in both planes counts as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.quant import select
from fedft.quant.cpu_library import CpuLibrary
from fedft.quant.cuda_library import CudaLibrary


def pack(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the planes of +1 and -1, each ``(ceil(n/8),)`` uint8, of the signs of a vector.

    Args:
        x: ``(n,)`` float32 or int8; NaN has no sign and becomes 0.

    """
    _require(x, (torch.float32, torch.int8))
    kernels = _kernels(x)
    if kernels is None:
        return _bits(x > 0), _bits(x < 0)
    planes = x.new_empty((2, plane_bytes(x.numel())), dtype=torch.uint8)
    kernels.ternary_pack(x, planes[0], planes[1])
    return planes[0], planes[1]


def unpack(pos: Tensor, neg: Tensor, count: int, scale: float | None = None) -> Tensor:
    """Return ``(count,)`` int8 signs, or float32 multiples of ``scale`` when that is given."""
    _require_planes(pos, neg, count)
    out = pos.new_empty(count, dtype=torch.int8 if scale is None else torch.float32)
    kernels = _kernels(pos)
    if kernels is not None:
        kernels.ternary_unpack(pos, neg, scale or 0.0, out)
        return out
    plus, minus = _signs(pos, neg, count)
    if scale is None:
        return out.copy_(plus.to(torch.int8) - minus.to(torch.int8))
    return out.fill_(0.0).masked_fill_(plus, scale).masked_fill_(minus, -scale)


def add_(total: Tensor, pos: Tensor, neg: Tensor, scale: float) -> None:
    """Add ``scale`` times the signs to ``total``, ``(n,)`` float32; elements of sign 0 stay as they are."""
    _require(total, (torch.float32,))
    _require_planes(pos, neg, total.numel())
    kernels = _kernels(total)
    if kernels is not None:
        kernels.ternary_add(pos, neg, scale, total)
        return
    plus, minus = _signs(pos, neg, total.numel())
    total.copy_(torch.where(plus, total + scale, torch.where(minus, total - scale, total)))


def accumulate_(total: Tensor, pos: Tensor, neg: Tensor, weights: Tensor) -> None:
    """Add ``Σ_c weights[c] t_c`` to ``total``, exactly.

    Args:
        total: ``(n,)`` int64; a sum outside its range wraps around.
        pos, neg: ``(clients, ceil(n/8))`` uint8.
        weights: ``(clients,)`` int64.

    """
    _require(total, (torch.int64,))
    _require(weights, (torch.int64,))
    if pos.dim() != 2 or pos.shape != (weights.numel(), plane_bytes(total.numel())) or neg.shape != pos.shape:
        raise FedftError(
            Code.TERNARY_PARTS_MISMATCH, f"planes {tuple(pos.shape)} for {weights.numel()} x {total.numel()}"
        )
    _require(pos, (torch.uint8,))
    _require(neg, (torch.uint8,))
    kernels = _kernels(total)
    if kernels is not None:
        kernels.ternary_accumulate(pos, neg, weights, total)
        return
    for plus, minus, weight in zip(pos, neg, weights, strict=True):
        p, m = _flags(plus, total.numel()), _flags(minus, total.numel())
        total.add_((p.to(torch.int64) - m.to(torch.int64)) * weight)


def plane_bytes(count: int) -> int:
    """Return the bytes of one bit plane of ``count`` elements."""
    return (count + 7) // 8


def _kernels(x: Tensor) -> CpuLibrary | CudaLibrary | None:
    return select.cuda() if x.is_cuda else select.cpu() if x.device.type == "cpu" else None


def _require(x: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if x.dtype not in dtypes or not x.is_contiguous():
        raise FedftError(
            Code.TERNARY_PARTS_MISMATCH,
            f"expected a contiguous tensor of {dtypes}, got {x.dtype} {x.stride()}",
        )


def _require_planes(pos: Tensor, neg: Tensor, count: int) -> None:
    for plane in (pos, neg):
        _require(plane, (torch.uint8,))
        if plane.shape != (plane_bytes(count),) or plane.device != pos.device:
            raise FedftError(
                Code.TERNARY_PARTS_MISMATCH, f"a plane of {tuple(plane.shape)} bytes for {count} elements"
            )


def _bits(flags: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(flags.to(torch.uint8), (0, -flags.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8, device=flags.device)).sum(1, dtype=torch.uint8)


def _flags(plane: Tensor, count: int) -> Tensor:
    bits = plane.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8, device=plane.device)
    return (bits & 1).bool().view(-1)[:count]


def _signs(pos: Tensor, neg: Tensor, count: int) -> tuple[Tensor, Tensor]:
    plus, minus = _flags(pos, count), _flags(neg, count)
    return plus & ~minus, minus & ~plus
