"""The CPU library behind ctypes: arguments checked, pointers passed, status codes turned into errors."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.quant.build import ABI
from fedft.quant.codebook import BLOCK, NESTED_BLOCK

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The float types that kernels read and write, with their numbers in the C interface."""

TIERS = ("scalar", "avx2", "avx512", "avx512_bf16")

_NOT_FINITE = 2
_SIGNATURES: dict[str, list[type]] = {
    "fedft_nf4_quantize": [c_void_p, c_int, c_int64, c_void_p, c_void_p, c_int],
    "fedft_nf4_nest": [c_void_p, c_int64, c_void_p, c_void_p, c_void_p, POINTER(c_float), c_int],
    "fedft_nf4_dequantize": [
        *(c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_int64, c_void_p, c_int, c_int),
    ],
    "fedft_ternary_pack": [c_void_p, c_int, c_int64, c_void_p, c_void_p],
    "fedft_ternary_unpack_i8": [c_void_p, c_void_p, c_int64, c_void_p],
    "fedft_ternary_unpack_f32": [c_void_p, c_void_p, c_int64, c_float, c_void_p],
    "fedft_ternary_add_f32": [c_void_p, c_void_p, c_int64, c_float, c_void_p],
    "fedft_ternary_accumulate": [c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_void_p],
    "fedft_cpu_set_tier": [c_int],
    "fedft_cpu_tier": [],
    "fedft_cpu_best_tier": [],
    "fedft_cpu_openmp": [],
    "fedft_abi_version": [],
}


class LibraryError(Exception):
    """Why a shared library cannot be used; one line."""


class CpuLibrary:
    """The compiled CPU kernels. Tensors must be contiguous and on the CPU.

    Args:
        path: the shared library.

    Raises:
        LibraryError: it cannot be loaded or has another version of the interface.

    """

    def __init__(self, path: Path) -> None:
        # torch has been imported by now, so the library's OpenMP is the one that torch brought along and
        # torch.set_num_threads governs both.
        self.path = path
        self._c = open_library(path, _SIGNATURES)

    @property
    def build_id(self) -> str:
        """What ``build.build_id`` gave when it was compiled; empty when compiled by hand."""
        return str(self._c.fedft_build_id().decode())

    @property
    def tier(self) -> str:
        """The instruction set in use."""
        return TIERS[self._c.fedft_cpu_tier()]

    @property
    def best_tier(self) -> str:
        """The best instruction set that this processor has a kernel for."""
        return TIERS[self._c.fedft_cpu_best_tier()]

    @property
    def openmp(self) -> bool:
        """Whether the library was built with OpenMP."""
        return bool(self._c.fedft_cpu_openmp())

    def set_tier(self, tier: str | None) -> None:
        """Use another instruction set (None: the best); the results are the same bits.

        Raises:
            FedftError: FEDFT-9001 for an unknown name or one that this processor lacks.

        """
        number = -1 if tier is None else TIERS.index(tier) if tier in TIERS else 99
        if self._c.fedft_cpu_set_tier(number):
            usable = TIERS[: self._c.fedft_cpu_best_tier() + 1]
            raise FedftError(
                Code.KERNEL_CHOICE_INVALID, f"no instruction set {tier!r} here, there are {', '.join(usable)}"
            )

    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """As ``reference.quantise``."""
        n = weight.numel()
        packed = torch.empty((n + 1) // 2, dtype=torch.uint8)
        absmax = torch.empty(-(-n // BLOCK), dtype=torch.float32)
        self._call(
            "fedft_nf4_quantize",
            *(_at(weight), DTYPES[weight.dtype], n, _at(packed), _at(absmax), torch.get_num_threads()),
        )
        return packed, absmax

    def nest(self, absmax: Tensor, code: Tensor) -> tuple[Tensor, Tensor, float]:
        """As ``reference.nest``."""
        n = absmax.numel()
        q8 = torch.empty(n, dtype=torch.uint8)
        absmax2 = torch.empty(-(-n // NESTED_BLOCK), dtype=torch.float32)
        offset = c_float()
        self._call(
            "fedft_nf4_nest",
            *(_at(absmax), n, _at(code), _at(q8), _at(absmax2), offset, torch.get_num_threads()),
        )
        return q8, absmax2, offset.value

    def dequantise(
        self, packed: Tensor, absmax: Tensor, nested: tuple[Tensor, Tensor, float] | None, out: Tensor
    ) -> None:
        """As ``reference.dequantise``."""
        absmax2, code, offset = nested if nested is not None else (absmax, None, 0.0)
        q8 = absmax if nested is not None else None
        self._call(
            "fedft_nf4_dequantize",
            *(_at(packed), _at(q8), _at(code), _at(absmax2), offset, out.numel(), _at(out)),
            *(DTYPES[out.dtype], torch.get_num_threads()),
        )

    def ternary_pack(self, x: Tensor, pos: Tensor, neg: Tensor) -> None:
        """Fill two bit planes, ``(ceil(n/8),)`` uint8, from the signs of a float32 or int8 tensor."""
        self._call("fedft_ternary_pack", _at(x), int(x.dtype == torch.float32), x.numel(), _at(pos), _at(neg))

    def ternary_unpack(self, pos: Tensor, neg: Tensor, scale: float, out: Tensor) -> None:
        """Fill an int8 tensor with signs, or a float32 tensor with ``scale`` times the signs."""
        if out.dtype == torch.int8:
            self._call("fedft_ternary_unpack_i8", _at(pos), _at(neg), out.numel(), _at(out))
        else:
            self._call("fedft_ternary_unpack_f32", _at(pos), _at(neg), out.numel(), scale, _at(out))

    def ternary_add(self, pos: Tensor, neg: Tensor, scale: float, total: Tensor) -> None:
        """Add ``scale`` times the signs to a float32 tensor."""
        self._call("fedft_ternary_add_f32", _at(pos), _at(neg), total.numel(), scale, _at(total))

    def ternary_accumulate(self, pos: Tensor, neg: Tensor, weights: Tensor, total: Tensor) -> None:
        """Add ``Σ_c weights[c] t_c`` to an int64 tensor; planes are ``(clients, ceil(n/8))``."""
        self._call(
            "fedft_ternary_accumulate",
            *(_at(pos), _at(neg), weights.numel(), total.numel(), _at(weights), _at(total)),
        )

    def _call(self, name: str, *args: object) -> None:
        status = getattr(self._c, name)(*args)
        if status == _NOT_FINITE:
            raise FedftError(
                Code.WEIGHT_NOT_QUANTISABLE, "a weight to be quantised holds a value that is not finite"
            )
        if status:
            raise FedftError(Code.KERNEL_FAILED, f"kernel {name} refused its arguments (status {status})")


def open_library(path: Path, signatures: dict[str, list[type]]) -> ctypes.CDLL:
    """Load a kernel library, check its interface version and declare its functions.

    Raises:
        LibraryError: it cannot be loaded, lacks a function, or has another version.

    """
    try:
        library = ctypes.CDLL(str(path))
        library.fedft_abi_version.restype = c_int
        version = library.fedft_abi_version()
        if version != ABI:
            raise LibraryError(f"{path} has interface version {version}, this package calls version {ABI}")
        library.fedft_build_id.restype = c_char_p
        for name, arguments in signatures.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{path} cannot be loaded: {error}") from error
    return library


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
