"""The learning rate over the whole run's optimiser steps, and how many steps that is."""

from __future__ import annotations

import math

from fedft.config.schema import TrainingSection


def local_steps(section: TrainingSection, samples: int) -> int:
    """Optimiser steps of one client with this many samples in one round."""
    return section.steps or math.ceil(section.epochs * samples / section.batch_size)


def rate_factor(section: TrainingSection, step: int, total: int) -> float:
    """The share of the peak learning rate at a step, counted from 0 over ``total`` steps of the run.

    It rises linearly over the first ``warmup_ratio`` of the steps; then it stays ("constant") or falls
    to zero on a line or half a cosine. Steps beyond ``total`` keep the last step's factor.
    """
    warmup = round(section.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(step - warmup, total - warmup - 1) / max(1, total - warmup)
    match section.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
