"""The quantisation kernels as torch operators (``torch.ops.fedft``), for every device and for tracing.

``nf4_quantise``, ``nf4_nest`` and ``nf4_dequantise`` run compiled kernels where ``select`` found some and
plain torch otherwise, with the same bits. ``nf4_matmul`` multiplies by a dequantised weight, either way
round, and is differentiable in its input any number of times; it keeps nothing for backward but the weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.quant import gemm, reference, select, workspace
from fedft.quant.codebook import BLOCK, NESTED_BLOCK
from fedft.quant.cpu_library import DTYPES, CpuLibrary
from fedft.quant.cuda_library import CudaLibrary

Nested = tuple[Tensor, Tensor, float]
"""Second-level absmax, the 256 values of the 8-bit map, offset."""

_WEIGHT = "Tensor packed, Tensor absmax, Tensor? absmax2, Tensor? code, float offset"
_library: Any = torch.library.Library("fedft", "DEF")
_library.define("nf4_quantise(Tensor weight) -> (Tensor, Tensor)")
_library.define("nf4_nest(Tensor absmax, Tensor code) -> (Tensor, Tensor, Tensor)")
_library.define(f"nf4_dequantise({_WEIGHT}, SymInt[] shape, ScalarType dtype) -> Tensor")
_library.define(
    f"nf4_matmul(Tensor x, {_WEIGHT}, SymInt out_features, SymInt in_features, Tensor? bias, "
    "bool transposed) -> Tensor"
)


def dequantise_into(packed: Tensor, absmax: Tensor, nested: Nested | None, out: Tensor) -> None:
    """Fill ``out`` (any float dtype, contiguous) with the weight's values.

    Raises:
        FedftError: FEDFT-9011 when the parts do not belong to a weight of that size.

    """
    check_parts(packed, absmax, nested, out.numel())
    kernels = _kernels(out.device) if out.dtype in DTYPES else None
    (kernels or reference).dequantise(packed, absmax, nested, out)


def check_parts(packed: Tensor, absmax: Tensor, nested: Nested | None, count: int) -> None:
    """Raise FEDFT-9011 unless the parts are those of ``count`` weights: kernels trust the sizes."""
    blocks = -(-count // BLOCK)
    first = torch.float32 if nested is None else torch.uint8
    expected = [(packed, torch.uint8, (count + 1) // 2), (absmax, first, blocks)]
    if nested is not None:
        expected += [(nested[0], torch.float32, -(-blocks // NESTED_BLOCK)), (nested[1], torch.float32, 256)]
    for part, dtype, size in expected:
        if part.dtype != dtype or part.numel() != size or not part.is_contiguous():
            raise FedftError(
                Code.QUANTISED_WEIGHT_INVALID,
                f"not an NF4 weight of {count} elements: a part is {part.dtype} {tuple(part.shape)}, "
                f"expected {size} of {dtype}",
            )
        if part.device != packed.device:
            raise FedftError(
                Code.QUANTISED_WEIGHT_INVALID, f"parts of one weight lie on {packed.device} and {part.device}"
            )


def _kernels(device: torch.device) -> CpuLibrary | CudaLibrary | None:
    return select.cuda() if device.type == "cuda" else select.cpu() if device.type == "cpu" else None


def _quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    if not weight.is_floating_point():
        raise FedftError(Code.WEIGHT_NOT_QUANTISABLE, f"a weight of {weight.dtype} cannot be quantised")
    kernels = _kernels(weight.device) if weight.dtype in DTYPES else None
    return (kernels or reference).quantise(weight.detach().contiguous())


def _nest(absmax: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kernels = _kernels(absmax.device)
    q8, absmax2, offset = (kernels or reference).nest(absmax.contiguous(), code.contiguous())
    return q8, absmax2, torch.tensor(offset, dtype=torch.float32)


def _nested(absmax2: Tensor | None, code: Tensor | None, offset: float) -> Nested | None:
    return None if absmax2 is None or code is None else (absmax2, code, offset)


def _dequantise(
    packed: Tensor,
    absmax: Tensor,
    absmax2: Tensor | None,
    code: Tensor | None,
    offset: float,
    shape: list[int],
    dtype: torch.dtype,
) -> Tensor:
    out = torch.empty(shape, dtype=dtype, device=packed.device)
    dequantise_into(packed, absmax, _nested(absmax2, code, offset), out)
    return out


def _matmul(
    x: Tensor,
    packed: Tensor,
    absmax: Tensor,
    absmax2: Tensor | None,
    code: Tensor | None,
    offset: float,
    out_features: int,
    in_features: int,
    bias: Tensor | None,
    transposed: bool,
) -> Tensor:
    """``x Wᵀ + bias`` when ``transposed``, and ``x W`` otherwise."""
    weight = workspace.take((out_features, in_features), x.dtype, x.device)
    dequantise_into(packed, absmax, _nested(absmax2, code, offset), weight)
    rows = x.reshape(-1, x.shape[-1])
    result = gemm.times_transposed(rows, weight, bias) if transposed else gemm.times(rows, weight)
    return result.view(*x.shape[:-1], result.shape[-1])


def _fake_quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    n = weight.numel()
    absmax = weight.new_empty(-(-n // BLOCK), dtype=torch.float32)
    return weight.new_empty((n + 1) // 2, dtype=torch.uint8), absmax


def _fake_nest(absmax: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = absmax.numel()
    scalar = torch.empty((), dtype=torch.float32, device="cpu")
    return absmax.new_empty(n, dtype=torch.uint8), absmax.new_empty(-(-n // NESTED_BLOCK)), scalar


def _fake_dequantise(packed: Tensor, *rest: Any) -> Tensor:
    return packed.new_empty(rest[-2], dtype=rest[-1])


def _fake_matmul(x: Tensor, *rest: Any) -> Tensor:
    out_features, in_features, _, transposed = rest[-4:]
    return x.new_empty(*x.shape[:-1], out_features if transposed else in_features)


def _keep_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    packed, absmax, absmax2, code = inputs[1:5]
    ctx.save_for_backward(packed, absmax, absmax2, code)
    ctx.offset, ctx.out_features, ctx.in_features, ctx.transposed = *inputs[5:8], inputs[9]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    weight = ctx.saved_tensors
    sizes = (ctx.offset, ctx.out_features, ctx.in_features)
    grad_x = torch.ops.fedft.nf4_matmul(grad, *weight, *sizes, None, not ctx.transposed)
    return (grad_x, *[None] * 9)


for _name, _run, _fake in (
    ("nf4_quantise", _quantise, _fake_quantise),
    ("nf4_nest", _nest, _fake_nest),
    ("nf4_dequantise", _dequantise, _fake_dequantise),
    ("nf4_matmul", _matmul, _fake_matmul),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fedft::{_name}", _fake, lib=_library)
torch.library.register_autograd("fedft::nf4_matmul", _backward, setup_context=_keep_weight, lib=_library)

# Through the operators, so that a trace sees one node for each.
quantise = torch.ops.fedft.nf4_quantise
nest = torch.ops.fedft.nf4_nest
dequantise = torch.ops.fedft.nf4_dequantise
matmul = torch.ops.fedft.nf4_matmul
