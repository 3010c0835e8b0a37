"""The choice of kernels: what this process computes with, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from fedft.errors import Code, FedftError
from fedft.quant import build
from fedft.quant.build import BuildError
from fedft.quant.cpu_library import CpuLibrary, LibraryError
from fedft.quant.cuda_library import CudaLibrary

MODES = ("auto", "cpu", "cuda", "torch")
_PACKAGED = Path(__file__).resolve().parent / "_native"

_Library = TypeVar("_Library", CpuLibrary, CudaLibrary)


@dataclass
class Choice:
    """A library, or None when plain torch is used; and the reasons, one line each."""

    library: CpuLibrary | CudaLibrary | None = None
    reasons: list[str] = field(default_factory=list)


@cache
def mode() -> str:
    """Return FEDFT_KERNELS.

    ``auto`` takes what there is, ``torch`` no compiled kernel; ``cpu`` and ``cuda`` insist on that library
    (``cpu`` leaves CUDA tensors to torch).

    Raises:
        FedftError: FEDFT-9001 for another value.

    """
    value = os.environ.get("FEDFT_KERNELS", "auto").strip().lower() or "auto"
    if value not in MODES:
        raise FedftError(
            Code.KERNEL_CHOICE_INVALID, f"FEDFT_KERNELS is {value!r}, it can be {', '.join(MODES)}"
        )
    return value


@cache
def cpu_choice() -> Choice:
    """Choose the CPU kernels: the packaged library, a cached or fresh build, or none.

    Raises:
        FedftError: FEDFT-9002 when FEDFT_KERNELS=cpu and there is none.

    """
    if mode() == "torch":
        return Choice(None, ["FEDFT_KERNELS=torch"])
    choice = Choice()
    _try_packaged(choice, "libfedft_cpu.so", "cpu", CpuLibrary)
    _try_cached(choice, build.cached_cpu, CpuLibrary)
    if isinstance(choice.library, CpuLibrary):
        choice.library.set_tier(os.environ.get("FEDFT_KERNELS_ISA") or None)
    return _insist(choice, "cpu")


@cache
def cuda_choice() -> Choice:
    """Choose the CUDA kernels, likewise.

    Raises:
        FedftError: FEDFT-9002 when FEDFT_KERNELS=cuda and there are none.

    """
    if mode() in ("torch", "cpu"):
        return Choice(None, [f"FEDFT_KERNELS={mode()}"])
    choice = Choice()
    if torch.cuda.is_available():
        _try_packaged(choice, "libfedft_cuda.so", "cuda", CudaLibrary)
        _try_cached(choice, lambda: build.cached_cuda(_archs()), CudaLibrary)
    else:
        choice.reasons.append("torch finds no CUDA device")
    return _insist(choice, "cuda")


def cpu() -> CpuLibrary | None:
    """Return the CPU kernels in use, or None."""
    library = cpu_choice().library
    return library if isinstance(library, CpuLibrary) else None


def cuda() -> CudaLibrary | None:
    """Return the CUDA kernels in use, or None."""
    library = cuda_choice().library
    return library if isinstance(library, CudaLibrary) else None


def forget() -> None:
    """Choose anew at the next use: the environment has changed."""
    for choice in (mode, cpu_choice, cuda_choice):
        choice.cache_clear()


def _archs() -> list[str]:
    """Compute capabilities of the devices, ascending: ``["80", "90"]``."""
    found = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return [f"{major}{minor}" for major, minor in sorted(found)]


def _try_packaged(choice: Choice, file: str, kind: str, load: Callable[[Path], _Library]) -> None:
    path = _PACKAGED / file
    if not path.exists():
        choice.reasons.append("the package was installed without a compiled library")
        return
    try:
        library = load(path)
        if library.build_id != build.build_id(kind):
            raise LibraryError(f"{path} was built from other sources")
        choice.library = library
        choice.reasons.append(f"installed with the package: {path}")
    except (LibraryError, BuildError) as error:
        choice.reasons.append(str(error))


def _try_cached(choice: Choice, find: Callable[[], Path], load: Callable[[Path], _Library]) -> None:
    if choice.library is not None:
        return
    try:
        path = find()
        choice.library = load(path)
        choice.reasons.append(f"compiled on this machine: {path}")
    except (LibraryError, BuildError) as error:
        choice.reasons.append(str(error))


def _insist(choice: Choice, kind: str) -> Choice:
    if mode() == kind and choice.library is None:
        raise FedftError(
            Code.KERNELS_UNAVAILABLE,
            f"FEDFT_KERNELS={kind}, but there is no {kind} library: {'; '.join(choice.reasons)}",
            hint="unset FEDFT_KERNELS to compute with torch instead",
        )
    return choice
