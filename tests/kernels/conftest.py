"""The emulated CUDA kernels, compiled once."""

from __future__ import annotations

import pytest

from tests.kernels.emulated import Emulated, compile_emulated


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    return compile_emulated(tmp_path_factory.mktemp("emulated") / "libfedft_emulated.so")
