"""Clipping the contribution of each unit, over everything it contributes to at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 1 - 2.0**-16
"""Norms are brought to this share of the bound, so that float32 rounding cannot lift a sum above it."""


_BLOCK = 1 << 10


@dataclass
class LocalCounts:
    """What clipping saw. These numbers depend on private data and must not leave the machine.

    Attributes:
        units: contributions seen.
        clipped: those above the bound.
        non_finite: those with a NaN, an infinity or a norm that no float32 factor brings to the bound, which
            count as zero.

    """

    units: int = 0
    clipped: int = 0
    non_finite: int = 0


@dataclass(frozen=True)
class ClippingKind:
    """A rule that makes contributions at most as long as the bound.

    Attributes:
        weights: what to multiply contributions with, of their L2 norms (units,) and the bound. Whatever it
            says, none is left longer than the bound: the guarantee does not rest on the rule.

    """

    weights: Callable[[Tensor, float], Tensor]


FLAT = ClippingKind(lambda norms, max_norm: (max_norm / norms).clamp(max=1.0))
"""min(1, C / norm): Abadi et al. 2016, algorithm 1."""

STABILITY = 0.01
"""γ of AUTO-S, in units of a gradient's norm; the value of the paper's experiments."""

AUTO_S = ClippingKind(lambda norms, max_norm: max_norm / (norms + STABILITY))
"""C / (norm + γ): automatic clipping (Bu et al., NeurIPS 2023, arXiv 2206.07136). Every contribution gets
about the length C, so that C and the gradients' scale only scale the learning rate."""


def clip_weights(rows: Tensor, max_norm: float, counts: LocalCounts, clipping: ClippingKind = FLAT) -> Tensor:
    """Return what to multiply each row with so that its L2 norm is at most `max_norm`.

    Args:
        rows: (units, d) float32, one unit's whole contribution in each; non-finite rows are set to zero.
        max_norm: the bound C.
        counts: added to.
        clipping: the rule.

    Returns:
        (units,) float32: at most C / norm, 0 for a non-finite row.

    """
    norms = _norms(rows)
    weights = norm_weights(norms, max_norm, counts, clipping)
    unusable = weights == 0
    if unusable.any():
        rows[unusable] = 0.0
    return weights


def norm_weights(
    norms: Tensor, max_norm: float, counts: LocalCounts, clipping: ClippingKind = FLAT
) -> Tensor:
    """Return what brings contributions of these L2 norms to `max_norm`, (units,) float32; see `clip_weights`.

    A weight below the smallest normal number has lost its digits, and so has what it would be multiplied
    with: such a contribution counts as not finite.
    """
    largest = max_norm * MARGIN / norms
    weights = torch.minimum(clipping.weights(norms, max_norm * MARGIN), largest).clamp(min=0.0).float()
    usable = torch.isfinite(norms) & (weights >= torch.finfo(torch.float32).tiny)
    weights = torch.where(usable, weights, 0.0)
    counts.units += len(norms)
    counts.non_finite += int((~usable).sum())
    counts.clipped += int((usable & (largest.float() < 1)).sum())
    return weights


def _norms(rows: Tensor) -> Tensor:
    """Return the L2 norms of (units, d) float32 rows, (units,) float64, to within 8e-6 however long they are.

    Summed in float32 from end to end, a norm over 1e8 entries is short by 8 %. Blocks of 1,024 are summed so,
    at a third of the cost of float64 throughout, and their squares in float64.
    """
    units, length = rows.shape
    blocks = length // _BLOCK
    whole = rows[:, : blocks * _BLOCK].reshape(units, blocks, _BLOCK)
    rest = rows[:, blocks * _BLOCK :]
    parts = (
        torch.linalg.vector_norm(whole, dim=2),
        torch.linalg.vector_norm(rest, dim=1, keepdim=True),
    )
    norms: Tensor = torch.linalg.vector_norm(torch.cat(parts, dim=1).double(), dim=1)
    return norms
