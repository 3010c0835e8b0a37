"""Memory of a client's training step: planned before a run, measured in it."""

from __future__ import annotations

from typing import Any

import torch

from fedft.adapters import resolve_targets
from fedft.config import RunConfig
from fedft.errors import FedftError
from fedft.models.quantised import class_and_changes
from fedft.models.sources import resolve_source
from fedft.quant.memory import MemoryPlan, plan_memory


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
    from transformers import AutoConfig

    auto_class, changes = class_and_changes(config.task)
    place, revision = resolve_source(config.model.source), config.model.revision or None
    try:
        described = AutoConfig.from_pretrained(place, revision=revision, **changes)
    except (OSError, ValueError) as error:
        raise FedftError(
            "FEDFT-2002",
            f"cannot read the configuration of the model {config.model.source}: {error}",
            hint="without network, download it elsewhere and name its folder in model.source",
        ) from error
    patterns = config.adapter.targets

    def make() -> Any:
        return auto_class.from_config(described, dtype=getattr(torch, config.model.dtype))

    return plan_memory(
        make,
        lambda model: resolve_targets(model, "auto" if patterns == ("auto",) else list(patterns)),
        rank=config.adapter.rank,
        batch=batch or config.training.micro_batch_size or config.training.batch_size,
        tokens=tokens or config.task.max_length,
        quantised=config.model.quant == "nf4",
    )
