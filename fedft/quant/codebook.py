"""The constants of the NF4 format: its 16 levels, block sizes, and the 8-bit map of the second level."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 64
"""Weights that share one absmax."""

NESTED_BLOCK = 256
"""Absmax values that share one second-level absmax."""

MIN_SCALE = 1e-38
"""The least divisor of a block, so that a block of zeros has a finite reciprocal."""

# Quantiles of the normal distribution, normalised to [-1, 1], zero included (Dettmers et al. 2023,
# QLoRA, appendix E), at float32 precision.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@lru_cache
def levels(device: torch.device) -> Tensor:
    """Return the 16 levels, ``(16,)`` float32, ascending."""
    return torch.tensor(NF4, dtype=torch.float32, device=device)


@lru_cache
def nested_map(device: torch.device) -> Tensor:
    """Return the 256 values of the signed 8-bit dynamic map, ``(256,)`` float32, ascending.

    Seven decades; in decade ``10^(i-6)`` the means of neighbours among ``2^i + 1`` points evenly spaced on
    [0.1, 1], with both signs; and 0 and 1 (Dettmers 2015, arXiv 1511.04561). Each point is rounded to
    float32 once, as bitsandbytes' table is on processors with a fused multiply-add.
    """
    low = _round(0.1)
    values = [0.0, 1.0]
    for decade in range(7):
        count = 2**decade
        step = _round((1.0 - low) / count)
        ends = [
            low + step * k if k < (count + 1) // 2 else 1.0 - step * (count - k) for k in range(count + 1)
        ]
        points = torch.tensor(ends, dtype=torch.float64).float()
        means = (points[:-1] + points[1:]) / 2 * _round(10.0 ** (decade - 6))
        values += means.tolist() + (-means).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)


def midpoints(table: Tensor) -> Tensor:
    """Return the means of neighbours of an ascending table: where the nearest entry changes."""
    return (table[:-1] + table[1:]) / 2


def _round(value: float) -> float:
    return torch.tensor(value, dtype=torch.float64).float().item()
