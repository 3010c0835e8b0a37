"""NF4 in plain torch operations: what the kernels must equal bit for bit, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.quant.codebook import BLOCK, MIN_SCALE, NESTED_BLOCK, levels, midpoints

_CHUNK = BLOCK * NESTED_BLOCK * 64  # about a million weights: temporaries stay small


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a float tensor in blocks of 64 along its flat order.

    Returns:
        Packed codes, ``(ceil(n/2),)`` uint8, the first of each pair in the high four bits; absmax,
        ``(ceil(n/64),)`` float32.

    Raises:
        FedftError: FEDFT-9010 when a value is not finite.

    """
    flat = weight.detach().reshape(-1)
    codes, scales = [], []
    for chunk in torch.split(flat, _CHUNK):
        code, scale = _blockwise(chunk.float(), BLOCK, midpoints(levels(chunk.device)))
        codes.append(code)
        scales.append(scale)
    absmax = torch.cat(scales) if scales else flat.new_zeros(0, dtype=torch.float32)
    refuse_not_finite(absmax)
    code = torch.cat(codes) if codes else flat.new_zeros(0, dtype=torch.uint8)
    if code.numel() % 2:
        code = torch.cat([code, code.new_full((1,), 7)])  # the code of zero
    return (code[::2] << 4) | code[1::2], absmax


def nest(absmax: Tensor, code: Tensor) -> tuple[Tensor, Tensor, float]:
    """Quantise absmax values, less their mean, to 8 bits in blocks of 256.

    Args:
        absmax: ``(k,)`` float32.
        code: ``(256,)`` float32, ascending.

    Returns:
        8-bit codes ``(k,)``, second-level absmax ``(ceil(k/256),)`` float32, the mean (a float32 value).

    """
    refuse_not_finite(absmax)
    offset = _mean(absmax)
    codes, absmax2 = _blockwise(absmax - offset, NESTED_BLOCK, midpoints(code))
    return codes, absmax2, offset


def dequantise(
    packed: Tensor, absmax: Tensor, nested: tuple[Tensor, Tensor, float] | None, out: Tensor
) -> None:
    """Fill ``out``, any float dtype, with ``level[code] * scale``, rounded once.

    Args:
        packed: ``(ceil(n/2),)`` uint8.
        absmax: ``(ceil(n/64),)``: float32 scales, or 8-bit codes when ``nested`` is given.
        nested: (second-level absmax, the 256 values, offset): scale = value[code] * absmax2 + offset.
        out: ``n`` elements, contiguous.

    """
    flat = out.view(-1)
    table = levels(packed.device)
    for start in range(0, flat.numel(), _CHUNK):
        part = flat[start : start + _CHUNK]
        pairs = packed[start // 2 : (start + part.numel() + 1) // 2]
        codes = torch.stack([pairs >> 4, pairs & 15], dim=1).view(-1)[: part.numel()]
        scale = absmax[start // BLOCK : -(-(start + part.numel()) // BLOCK)]
        if nested is not None:
            absmax2, values, offset = nested
            second = absmax2[start // (BLOCK * NESTED_BLOCK) :]
            scale = values[scale.long()] * _spread(second, NESTED_BLOCK, scale.numel()) + offset
        part.copy_(table[codes.long()] * _spread(scale, BLOCK, part.numel()))


def refuse_not_finite(absmax: Tensor) -> None:
    """Raise FEDFT-9010 when an absmax is not finite, which it is when a weight is not."""
    if not bool(torch.isfinite(absmax).all()):
        raise FedftError(
            Code.WEIGHT_NOT_QUANTISABLE, "a weight to be quantised holds a value that is not finite"
        )


def _blockwise(x: Tensor, block: int, mid: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (nearest entry, the lower one on a tie) and absmax of each block of a float32 vector.

    A partial last block is divided by its absmax instead of multiplied by the reciprocal, and its absmax
    is at least MIN_SCALE: bitsandbytes' CPU bits.
    """
    full = x.numel() - x.numel() % block
    head, tail = x[:full].view(-1, block), x[full:]
    absmax = head.abs().amax(dim=1) if full else x.new_zeros(0)
    scaled = (head * (1.0 / absmax.clamp(min=MIN_SCALE)).unsqueeze(1)).view(-1)
    if tail.numel():
        last = tail.abs().max().clamp(min=MIN_SCALE)
        absmax, scaled = torch.cat([absmax, last.view(1)]), torch.cat([scaled, tail / last])
    return torch.bucketize(scaled, mid, out_int32=True).to(torch.uint8), absmax


def _mean(absmax: Tensor) -> float:
    """Return the mean as float32, summed as integers: no order of summation, on any device, changes a bit."""
    count = absmax.numel()
    top = float(absmax.max()) if count else 0.0
    if top == 0.0:
        return 0.0
    unit = math.ldexp(1.0, min(40, 62 - count.bit_length()) - math.frexp(top)[1])
    total = int((absmax.double() * unit).round().to(torch.int64).sum())
    return float(torch.tensor(float(total) / count / unit, dtype=torch.float64).float())


def _spread(scale: Tensor, block: int, count: int) -> Tensor:
    return scale.repeat_interleave(block)[:count]
