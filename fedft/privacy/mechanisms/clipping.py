"""Clipping the contribution of each unit, over everything it contributes to at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 1 - 2.0**-16
"""Norms are brought to this share of the bound, so that float32 rounding cannot lift a sum above it."""


@dataclass
class LocalCounts:
    """What clipping saw. These numbers depend on private data and must not leave the machine.

    Attributes:
        units: contributions seen.
        clipped: those above the bound.
        non_finite: those with a NaN, an infinity or a norm beyond float32, which count as zero.

    """

    units: int = 0
    clipped: int = 0
    non_finite: int = 0


def clip_weights(rows: Tensor, max_norm: float, counts: LocalCounts) -> Tensor:
    """Return what to multiply each row with so that its L2 norm is at most `max_norm`.

    Args:
        rows: (units, d) float32, one unit's whole contribution in each; non-finite rows are set to zero.
        max_norm: the bound C.
        counts: added to.

    Returns:
        (units,) float32: min(1, C / norm), 0 for a non-finite row (Abadi et al. 2016, algorithm 1).

    """
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    bad = ~torch.isfinite(norms)
    if bad.any():
        rows[bad] = 0.0
    return norm_weights(norms, max_norm, counts)


def norm_weights(norms: Tensor, max_norm: float, counts: LocalCounts) -> Tensor:
    """Return what brings contributions of these L2 norms to `max_norm`, (units,); see `clip_weights`."""
    finite = torch.isfinite(norms)
    weights = (max_norm * MARGIN / torch.where(finite, norms, 0.0)).clamp(max=1.0)
    counts.units += len(norms)
    counts.non_finite += int((~finite).sum())
    counts.clipped += int((weights < 1).sum())
    return weights
