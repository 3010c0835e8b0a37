"""Norm bounding (Sun et al., arXiv 1911.07963): longer updates are scaled down to a bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedft.aggregation.rules.robust import Combined, RobustRule, exact_mean, norm
from fedft.options import Options


class NormBoundOptions(Options):
    """What norm bounding is told."""

    max_norm: float = Field(
        0.0, ge=0, description="L2 norm to which longer updates are scaled; 0: the median norm of the round"
    )


@dataclass(frozen=True)
class NormBound(RobustRule):
    """The mean of updates that are scaled down to a bound; the share kept is the factor.

    One client moves the mean by bound / n at most, up to rounding to float32. With the median as the bound,
    this holds while fewer than half of the updates are hostile. It bounds an attack's size, not its
    direction.
    """

    max_norm: float = 0.0

    name = "norm-bound"
    options = NormBoundOptions

    @property
    def fewest_updates(self) -> int:
        """One where the bound is given; three make a median that one cannot choose."""
        return 1 if self.max_norm else 3

    def combine(self, updates: NDArray[np.float32]) -> Combined:
        """Scale each row down to the bound, and average."""
        norms = [norm(row) for row in updates]
        bound = self.max_norm or float(np.median(norms))
        kept = np.array([1.0 if length <= bound else bound / length for length in norms])
        scaled = ((row * factor).astype(np.float32) for row, factor in zip(updates, kept, strict=True))
        return Combined(exact_mean(scaled, updates.shape[1]), kept)


NORM_BOUND = NormBound()
