"""The weighted mean, which one hostile client can move as far as the bound on its norm allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedft.aggregation.rules.interface import AggregationRule, Verdict
from fedft.codecs import DecodedUpdate
from fedft.tensors import Arrays

if TYPE_CHECKING:
    from fedft.aggregation.accumulator import ExactAccumulator


@dataclass(frozen=True)
class Mean(AggregationRule):
    """The exact mean, weighted as ``rounds.weighting`` says; in memory that does not grow with clients."""

    name = "mean"
    needs_single_updates = False

    def collector(self, accumulator: ExactAccumulator) -> WeightedSum:
        """Return the accumulator itself, under the collector's interface."""
        return WeightedSum(accumulator)


@dataclass(frozen=True)
class WeightedSum:
    """Adds every update to an ``ExactAccumulator`` and forgets it."""

    accumulator: ExactAccumulator
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    def add(self, client: str, update: DecodedUpdate, weight: int) -> None:
        """Add it with its weight."""
        self.accumulator.add_decoded(update, weight)

    def result(self) -> Arrays:
        """Return the weighted mean; FEDFT-5014 when nothing was added."""
        return self.accumulator.mean()


MEAN = Mean()
