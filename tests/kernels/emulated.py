"""The CUDA kernels compiled for the processor, behind the interface that they have on a GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from torch import Tensor

from fedft.errors import FedftError
from fedft.quant import build
from fedft.quant.cuda_library import _UNSUPPORTED, CudaLibrary

KERNELS = Path(__file__).parents[2] / "kernels"
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler on this machine")


class Emulated(CudaLibrary):
    """The same calls on CPU tensors."""

    def _call(self, name: str, first: Tensor, *rest: object) -> bool:
        arguments = [a.data_ptr() if isinstance(a, Tensor) else a for a in (first, *rest)]
        status = getattr(self._c, name)(*arguments, None)
        if status not in (0, _UNSUPPORTED):
            raise FedftError("FEDFT-9004", f"{name}: status {status}")
        return bool(status == 0)


def compile_emulated(library: Path) -> Emulated:
    """Compile every .cu file as C++ against kernels/tests/emulate.h."""
    files = sorted(str(path) for path in (build.sources() / "cuda").glob("*.cu"))
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-unknown-pragmas"]
    flags += ["-DFEDFT_EMULATE", "-I", str(KERNELS / "tests")]
    subprocess.run(["c++", *flags, "-x", "c++", *files, "-o", library], check=True)
    return Emulated(library)
