"""Memory of a client's training step: planned before a run, measured in it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from fedft.adapters import resolve_targets
from fedft.config import RunConfig
from fedft.models.skeleton import model_maker
from fedft.privacy.models.interface import privacy_model
from fedft.registries import METHODS, QUANT
from fedft.training.memory_plan import MemoryPlan, plan_memory


def plan_run(config: RunConfig, *, batch: int = 0, tokens: int = 0) -> MemoryPlan:
    """Estimate the peak memory of one client's training step; no weight is read.

    Args:
        config: names model, storage, targets, rank and batch.
        batch: samples in one forward pass; 0: the configuration's micro-batch, or its batch.
        tokens: of every sample; 0: ``task.max_length``, the longest that there can be.

    Raises:
        FedftError: FEDFT-2001, FEDFT-2002 (no such model, no configuration of it), FEDFT-9015 (the step
            cannot be planned), and those of ``resolve_targets``.

    """
    patterns = config.adapter.targets

    return plan_memory(
        model_maker(config.model, config.task),
        lambda model: resolve_targets(model, "auto" if patterns == ("auto",) else list(patterns)),
        layer=METHODS.get(config.method).planned_layer,
        rank=config.adapter.rank,
        batch=batch or config.training.micro_batch_size or config.training.batch_size,
        tokens=tokens or config.task.max_length,
        format=None if config.model.quant == "none" else QUANT.get(config.model.quant),
        private=privacy_model(config).charged_at_client,
    )


class MemoryWatch:
    """Measures the most memory that training holds above what the process held before its model was loaded.

    On the CPU that is the resident set (Linux; nothing is measured elsewhere): libraries that were loaded
    since then and the data are in it. On CUDA it is what torch has allocated on the device.
    """

    def __init__(self, device: str) -> None:
        self._on_device = device == "cuda"
        self._before = _resident("VmRSS")

    def restart(self) -> None:
        """Forget the peak so far."""
        if self._on_device:
            torch.cuda.reset_peak_memory_stats()
        elif self._before:
            _CLEAR.write_text("5")  # proc(5): resets VmHWM

    def peak(self) -> int | None:
        """Return bytes since ``restart``; None where they cannot be measured."""
        if self._on_device:
            return torch.cuda.max_memory_allocated()
        return _resident("VmHWM") - self._before if self._before else None


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _resident(field: str) -> int:
    """Return a number of /proc/self/status in bytes; 0 where the peak cannot be read and reset."""
    if not os.access(_CLEAR, os.W_OK):
        return 0
    lines = _STATUS.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)
