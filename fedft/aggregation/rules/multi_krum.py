"""Multi-Krum (Blanchard et al., NeurIPS 2017): the mean of the updates that are closest to others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedft.aggregation.rules.robust import Combined, RobustRule, exact_mean
from fedft.aggregation.rules.trimmed import ByzantineOptions

_BLOCK = 1 << 16


@dataclass(frozen=True)
class MultiKrum(RobustRule):
    """The mean of the n - f - 2 updates with the smallest scores.

    The score of an update is the sum of its squared distances to its n - f - 2 closest neighbours. The
    assumption is at most f hostile clients of n ≥ 2f + 3. Of equal scores the first row counts, which is the
    one of the smallest key. The share kept of an update is 0 or 1. Takes n² d / 2 operations.
    """

    byzantine: int = 1

    name = "multi-krum"
    options = ByzantineOptions

    @property
    def fewest_updates(self) -> int:
        """2f + 3."""
        return 2 * self.byzantine + 3

    def combine(self, updates: NDArray[np.float32]) -> Combined:
        """Choose by score, and average what was chosen."""
        count, size = updates.shape
        wanted = count - self.byzantine - 2
        scores = krum_scores(updates, wanted)
        chosen = sorted(range(count), key=lambda row: (scores[row], row))[:wanted]
        kept = np.zeros(count)
        kept[chosen] = 1.0
        return Combined(exact_mean((updates[row] for row in chosen), size), kept)


def krum_scores(updates: NDArray[np.float32], neighbours: int) -> list[float]:
    """Return the sum of every row's smallest squared distances to other rows, correctly rounded."""
    distances = _squared_distances(updates)
    return [
        math.fsum(sorted(np.delete(row, index).tolist())[:neighbours]) for index, row in enumerate(distances)
    ]


def _squared_distances(updates: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (n, n) squared L2 distances. Each depends on its two rows alone, in either order, to the bit."""
    count, size = updates.shape
    squared = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            parts = (
                np.sum(
                    np.square(
                        np.subtract(
                            updates[i, at : at + _BLOCK], updates[j, at : at + _BLOCK], dtype=np.float64
                        )
                    )
                )
                for at in range(0, size, _BLOCK)
            )
            squared[i, j] = squared[j, i] = math.fsum(parts)
    return squared


MULTI_KRUM = MultiKrum()
