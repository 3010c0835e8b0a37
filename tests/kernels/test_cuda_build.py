"""The CUDA library on a machine that has the compiler and perhaps no GPU."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest
import torch

from fedft.quant import build
from fedft.quant.cuda_library import CudaLibrary

nvcc = shutil.which("nvcc") or (Path("/usr/local/cuda/bin/nvcc").exists() and "nvcc")
pytestmark = pytest.mark.skipif(not nvcc, reason="no nvcc on this machine")

ARCHS = ("80", "90")


@pytest.fixture(scope="module")
def library() -> Path:
    # Compiled once for given sources; the cache is keyed by them.
    return build.cached_cuda(ARCHS)


@pytest.mark.slow
def test_compiles_for_both_architectures_and_newer_ones(library: Path) -> None:
    content = library.read_bytes()
    assert CudaLibrary(library).build_id == build.build_id("cuda")
    for arch in ARCHS:
        assert f"sm_{arch}".encode() in content
    assert b".target sm_90" in content or b"compute_90" in content


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: kernels/check_gpu.py tests more")
def test_a_launch_without_a_gpu_gives_a_clear_error(library: Path) -> None:
    CudaLibrary(library)  # declares the functions
    c = ctypes.CDLL(str(library))
    c.fedft_cuda_error_string.restype = ctypes.c_char_p
    memory = (ctypes.c_char * 256)()
    status = c.fedft_cuda_nf4_quantize(memory, 0, ctypes.c_int64(4), memory, memory, None)
    assert status > 1000
    message = c.fedft_cuda_error_string(status).decode()
    assert "driver" in message or "device" in message
