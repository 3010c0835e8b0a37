"""Coordinate-wise median and trimmed mean (Yin et al., arXiv 1803.01498)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedft.aggregation.rules.robust import Combined, RobustRule, exact_mean
from fedft.options import Options


class ByzantineOptions(Options):
    """What a rule is told that withstands a number of hostile clients."""

    byzantine: int = Field(
        1,
        ge=1,
        le=100_000,
        description="hostile clients of a round that it withstands (trimmed-mean, multi-krum)",
    )


@dataclass(frozen=True)
class TrimmedMean(RobustRule):
    """In each coordinate the mean without the f smallest and the f largest values.

    With at most f hostile clients of n ≥ 2f + 1, every coordinate of the result lies between two honest
    values. The share kept of an update is that of its coordinates that lie within the values averaged.
    """

    byzantine: int = 1

    name = "trimmed-mean"
    options = ByzantineOptions

    @property
    def fewest_updates(self) -> int:
        """2f + 1."""
        return 2 * self.byzantine + 1

    def combine(self, updates: NDArray[np.float32]) -> Combined:
        """Trim f values at either end."""
        return trimmed(updates, self.byzantine)


@dataclass(frozen=True)
class CoordinateMedian(RobustRule):
    """In each coordinate the median, which for an even number is the mean of the two in the middle.

    While fewer than half of the clients are hostile, every coordinate lies between two honest values.
    """

    name = "median"

    @property
    def fewest_updates(self) -> int:
        """Three: of two, one hostile client is half."""
        return 3

    def combine(self, updates: NDArray[np.float32]) -> Combined:
        """Trim all but the middle."""
        return trimmed(updates, (len(updates) - 1) // 2)


def trimmed(updates: NDArray[np.float32], cut: int) -> Combined:
    """Return the mean of what is left in each column without the ``cut`` smallest and largest, 2 cut < n."""
    count, size = updates.shape
    ordered = np.sort(updates, axis=0)
    lowest, highest = ordered[cut], ordered[count - 1 - cut]
    kept = np.array([np.mean((lowest <= row) & (row <= highest)) for row in updates])
    return Combined(exact_mean(ordered[cut : count - cut], size), kept)


TRIMMED_MEAN, MEDIAN = TrimmedMean(), CoordinateMedian()
