"""What this process computes quantised weights with, and why, for ``fedft doctor``."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import torch

from fedft.quant import gemm, select
from fedft.quant.cpu_library import CpuLibrary
from fedft.quant.select import Choice


def describe() -> dict[str, str]:
    """Return facts by name, in the order to show them. Compiles the kernels if that is still to be done.

    Raises:
        FedftError: FEDFT-9001, FEDFT-9002 as ``select``.

    """
    return {
        "FEDFT_KERNELS": select.mode(),
        "CPU kernels": _told(select.cpu_choice()),
        "CUDA kernels": _told(select.cuda_choice()),
        "processor": f"{platform.machine()}, {torch.get_num_threads()} threads, torch uses "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "float32 products": "oneDNN" if gemm.onednn_float32() else "torch's default",
        "CUDA devices": _devices(),
        "compilers": ", ".join(filter(None, map(shutil.which, ("c++", "nvcc")))) or "none",
        "torch": torch.__version__,
        "bitsandbytes": _version("bitsandbytes"),
    }


def _told(choice: Choice) -> str:
    library = choice.library
    if library is None:
        return f"plain torch ({'; '.join(choice.reasons)})"
    how = "compiled"
    if isinstance(library, CpuLibrary):
        how += f", {library.tier}" + (
            f" (best: {library.best_tier})" if library.tier != library.best_tier else ""
        )
        how += ", OpenMP" if library.openmp else ", one thread"
    return f"{how} ({'; '.join(choice.reasons)})"


def _devices() -> str:
    if not torch.cuda.is_available():
        return "none"
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(f"{facts.name} (sm_{facts.major}{facts.minor}, {facts.total_memory / 2**30:.0f} GiB)")
    return ", ".join(found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
