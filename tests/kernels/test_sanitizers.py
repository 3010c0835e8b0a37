"""The CPU library under AddressSanitizer and UndefinedBehaviorSanitizer, every instruction set in turn."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fedft.quant import build

KERNELS = Path(__file__).parents[2] / "kernels"
TOOLS = ("cmake", "ninja", "c++")

pytestmark = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_the_driver_runs_clean(tmp_path: Path) -> None:
    configured = run("cmake", "-S", KERNELS, "-B", tmp_path, "-G", "Ninja", "-DFEDFT_SANITIZE=ON")
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", tmp_path, "--target", "driver")
    assert built.returncode == 0, built.stdout
    result = run(tmp_path / "driver")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("0 failures")
    assert build.build_id("cpu") in result.stdout
