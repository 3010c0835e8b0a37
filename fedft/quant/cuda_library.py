"""The CUDA library behind ctypes: on the tensors' device and current stream, without synchronisation."""

from __future__ import annotations

from ctypes import c_char_p, c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.quant import reference
from fedft.quant.codebook import BLOCK
from fedft.quant.cpu_library import DTYPES, open_library

_SIGNATURES: dict[str, list[type]] = {
    "fedft_cuda_nf4_quantize": [c_void_p, c_int, c_int64, c_void_p, c_void_p, c_void_p],
    "fedft_cuda_nf4_dequantize": [
        *(c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_int64, c_void_p, c_int, c_void_p),
    ],
    "fedft_cuda_adapter_down": [
        *(c_void_p, c_void_p, c_void_p, c_float, c_int, c_int64, c_int64, c_int, c_int),
        *(c_void_p, c_void_p, c_void_p),
    ],
    "fedft_cuda_adapter_up_bwd": [
        *(c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_int, c_int64, c_int64, c_int),
        *(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
    ],
    "fedft_cuda_adapter_grad_persample": [
        *(c_void_p, c_void_p, c_void_p, c_int64, c_int, c_float, c_int, c_void_p, c_void_p, c_int, c_void_p),
    ],
    "fedft_cuda_clip_accumulate": [c_void_p, c_void_p, c_int64, c_int, c_float, c_void_p, c_void_p],
    "fedft_cuda_ternary_pack": [c_void_p, c_int, c_int64, c_void_p, c_void_p, c_void_p],
    "fedft_cuda_ternary_unpack": [c_void_p, c_void_p, c_int64, c_float, c_int, c_void_p, c_void_p],
    "fedft_cuda_ternary_add_f32": [c_void_p, c_void_p, c_int64, c_float, c_void_p, c_void_p],
    "fedft_cuda_ternary_accumulate": [c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p],
    "fedft_abi_version": [],
}
_UNSUPPORTED = 3
_PARTIAL_ROWS = 64


class CudaLibrary:
    """The compiled CUDA kernels. Tensors must be contiguous and on one CUDA device.

    Args:
        path: the shared library.

    Raises:
        LibraryError: it cannot be loaded or has another version of the interface.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._c = open_library(path, _SIGNATURES)
        self._c.fedft_cuda_error_string.restype = c_char_p

    @property
    def build_id(self) -> str:
        """What ``build.build_id`` gave when it was compiled."""
        return str(self._c.fedft_build_id().decode())

    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """As ``reference.quantise``."""
        n = weight.numel()
        packed = weight.new_empty((n + 1) // 2, dtype=torch.uint8)
        absmax = weight.new_empty(-(-n // BLOCK), dtype=torch.float32)
        self._call("fedft_cuda_nf4_quantize", weight, DTYPES[weight.dtype], n, packed, absmax)
        reference.refuse_not_finite(absmax)
        return packed, absmax

    def nest(self, absmax: Tensor, code: Tensor) -> tuple[Tensor, Tensor, float]:
        """As ``reference.nest``, which is fast enough: it runs once in a model's life."""
        return reference.nest(absmax, code)

    def dequantise(
        self, packed: Tensor, absmax: Tensor, nested: tuple[Tensor, Tensor, float] | None, out: Tensor
    ) -> None:
        """As ``reference.dequantise``, which also serves buffers that do not begin at 16 bytes."""
        absmax2, code, offset = nested if nested is not None else (absmax, None, 0.0)
        q8 = absmax if nested is not None else None
        parts = (packed, q8, code, absmax2, offset, out.numel(), out, DTYPES[out.dtype])
        if not self._call("fedft_cuda_nf4_dequantize", *parts):
            reference.dequantise(packed, absmax, nested, out)

    def adapter_down(self, x: Tensor, a: Tensor, R: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
        """Return ``u = x aᵀ`` and, for each group, ``w_g = scale u_g R_gᵀ``; None for a shape without kernel.

        Args:
            x: ``(n, in)`` bfloat16 or float16, read once.
            a: ``(groups r, in)``, the stacked A of the layers that read x; its dtype is x's.
            R: ``(groups, r, r)`` float32.
            scale: usually 1, or s when B is not scaled.

        """
        (n, width), groups, r = x.shape, R.shape[0], R.shape[1]
        u, w = x.new_empty(n, groups * r), x.new_empty(n, groups * r)
        facts = (scale, DTYPES[x.dtype], n, width, groups, r)
        done = self._call("fedft_cuda_adapter_down", x, a, R, *facts, u, w)
        return (u, w) if done else None

    def adapter_up_bwd(
        self, g: Tensor, bt: Tensor, R: Tensor, u: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return ``v = g B``, ``z = scale v R``, ``scale vᵀ u`` (float32); None for a shape without kernel.

        Args:
            g: ``(n, out)`` bfloat16 or float16, read once.
            bt: Bᵀ, ``(r, out)``, contiguous.
            R: ``(r, r)`` float32.
            u: ``(n, r)``, as ``adapter_down`` gave it.
            scale: as there.

        """
        (n, width), r = g.shape, R.shape[0]
        v, z = g.new_empty(n, r), g.new_empty(n, r)
        partial = R.new_empty(-(-n // _PARTIAL_ROWS), r, r)
        grad = torch.empty_like(R)
        facts = (scale, DTYPES[g.dtype], n, width, r)
        done = self._call("fedft_cuda_adapter_up_bwd", g, bt, R, u, *facts, v, z, partial, grad)
        return (v, z, grad) if done else None

    def per_sample_gradients(
        self, u: Tensor, v: Tensor, segments: Tensor, scale: float, square_norms: Tensor, *, add: bool
    ) -> Tensor:
        """Return ``scale vᵢᵀ uᵢ``, ``(b, r, r)`` float32, and put (or add) its squared norms.

        Args:
            u, v: ``(n, r)``.
            segments: ``(b + 1,)`` int64; sample i has rows ``segments[i]`` to ``segments[i+1]``.
            scale: as in ``adapter_down``.
            square_norms: ``(b,)`` float32.
            add: whether to add to them, for the norm over all layers.

        """
        b, r = segments.numel() - 1, u.shape[1]
        gradients = u.new_empty(b, r, r, dtype=torch.float32)
        self._require(
            "fedft_cuda_adapter_grad_persample",
            *(u, v, segments, b, r, scale, DTYPES[u.dtype], gradients, square_norms, int(add)),
        )
        return gradients

    def clipped_sum(self, gradients: Tensor, square_norms: Tensor, max_grad_norm: float) -> Tensor:
        """Return ``Σᵢ min(1, C / ‖gᵢ‖) Gᵢ``, ``(r, r)`` float32, of ``(b, r, r)`` and squares ``(b,)``."""
        b, r, _ = gradients.shape
        total = gradients.new_empty(r, r)
        self._require("fedft_cuda_clip_accumulate", gradients, square_norms, b, r, max_grad_norm, total)
        return total

    def ternary_pack(self, x: Tensor, pos: Tensor, neg: Tensor) -> None:
        """As ``CpuLibrary.ternary_pack``."""
        self._require("fedft_cuda_ternary_pack", x, int(x.dtype == torch.float32), x.numel(), pos, neg)

    def ternary_unpack(self, pos: Tensor, neg: Tensor, scale: float, out: Tensor) -> None:
        """As ``CpuLibrary.ternary_unpack``."""
        is_float = int(out.dtype == torch.float32)
        self._require("fedft_cuda_ternary_unpack", pos, neg, out.numel(), scale, is_float, out)

    def ternary_add(self, pos: Tensor, neg: Tensor, scale: float, total: Tensor) -> None:
        """As ``CpuLibrary.ternary_add``."""
        self._require("fedft_cuda_ternary_add_f32", pos, neg, total.numel(), scale, total)

    def ternary_accumulate(self, pos: Tensor, neg: Tensor, weights: Tensor, total: Tensor) -> None:
        """As ``CpuLibrary.ternary_accumulate``."""
        self._require(
            "fedft_cuda_ternary_accumulate", pos, neg, weights.numel(), total.numel(), weights, total
        )

    def _require(self, name: str, first: Tensor, *rest: object) -> None:
        if not self._call(name, first, *rest):
            raise FedftError(
                Code.KERNEL_FAILED, f"no kernel {name} for a tensor of {first.dtype} {tuple(first.shape)}"
            )

    def _call(self, name: str, first: Tensor, *rest: object) -> bool:
        """Run a kernel; False when it has none for these shapes."""
        arguments = [a.data_ptr() if isinstance(a, Tensor) else a for a in (first, *rest)]
        with torch.cuda.device(first.device):
            stream = torch.cuda.current_stream().cuda_stream
            status = getattr(self._c, name)(*arguments, stream)
        if status in (0, _UNSUPPORTED):
            return bool(status == 0)
        reason = self._c.fedft_cuda_error_string(status).decode()
        raise FedftError(Code.KERNEL_FAILED, f"kernel {name} failed: {reason} (status {status})")
