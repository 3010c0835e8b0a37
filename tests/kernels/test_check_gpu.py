"""The GPU checks' own code, as far as a machine without a GPU can run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.emulated import KERNELS, Emulated, needs_compiler

pytestmark = needs_compiler

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(KERNELS))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "checks"]:
        del sys.modules[name]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, str(KERNELS / "check_gpu.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KERNELS.parent,
                            env={"PYTHONPATH": str(KERNELS.parent)})  # fmt: skip
    assert result.returncode != 0
    assert "no CUDA device" in result.stderr
    assert "Traceback" not in result.stderr


def test_correctness_passes_and_notices_a_wrong_kernel(
    kernels: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    from checks import correctness

    monkeypatch.setattr(correctness, "LENGTHS", (65, 8200))
    monkeypatch.setattr(correctness, "SHAPES", ((70, 200, 1, 32), (70, 72, 3, 16)))
    count, *failed = correctness.run(kernels, CPU, 0)
    assert int(count.split()[0]) > 80
    assert failed == []
    right = kernels.clipped_sum
    monkeypatch.setattr(kernels, "clipped_sum", lambda *arguments: right(*arguments) * 1.001)
    assert len(correctness.run(kernels, CPU, 0)) == 1 + 9


def test_speed_and_steps_run(kernels: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    from checks import speed, training

    def once(work: Any, repeats: int = 1) -> float:
        work(0)
        return 1.0

    for module in (speed, training):
        monkeypatch.setattr(module, "milliseconds", once)
    for name in ("reset_peak_memory_stats", "max_memory_allocated", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    small = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "vocab_size": 50}
    monkeypatch.setattr(training, "SHAPE", small)
    monkeypatch.setattr(training, "TOKENS", 8)
    rows = [
        *speed.dequantisation(CPU, 1e9, size=64),
        *speed.adapter(kernels, CPU, 1e9, ((8, 16, 1), (8, 16, 3)), size=64),
        *speed.layers(CPU, sizes=(64,), lengths=(4,)),
        *training.steps(kernels, CPU, layers=1, batch=2),
    ]
    assert len(rows) == 1 + 3 + 1 + 4
    assert "the square adapters' time" in rows[-1][1]


def test_private_gradients_by_kernels_and_by_torch_agree(kernels: Emulated) -> None:
    from checks import training

    class Layer:
        R = torch.zeros(16, 16)

    results = []
    for used in (None, kernels):
        training.TOKENS = 8
        sink = training.PerSample(used, 2, CPU)
        layers: list[Any] = [Layer(), Layer()]
        generator = torch.Generator().manual_seed(0)
        for layer in layers:
            u, v = (torch.randn(2, 8, 16, generator=generator) for _ in range(2))
            sink.record(layer, u, v)
        sink.finish()
        results.append([layer.R.grad.clone() for layer in layers])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_a_report_is_added_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import check_gpu

    class Facts:
        name, major, minor = "Some GPU", 9, 0

    monkeypatch.setattr(check_gpu, "HERE", tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Facts)
    for _ in range(2):
        check_gpu.report(["correctness: 3 checks, 0 failed"], [("copy", "4 TB/s", "")])
    assert (tmp_path / "RESULTS.md").read_text().count("## Some GPU (sm_90)") == 2
