"""In each coordinate what lies between the least and the greatest value, at a share of the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedft.aggregation.rules.robust import Combined, RobustRule
from fedft.options import Options


class BetweenOptions(Options):
    share: float = Field(0.5, ge=0, le=1, description="of the way from the least to the greatest value")


@dataclass(frozen=True)
class Between(RobustRule):
    share: float = 0.5

    name = "between"
    options = BetweenOptions

    def combine(self, updates: NDArray[np.float32]) -> Combined:
        ends = updates.min(axis=0) * (1 - self.share) + updates.max(axis=0) * self.share
        return Combined(ends.astype(np.float32), np.ones(len(updates)))


BETWEEN = Between()
