"""Exact, order-free averaging of updates, and the checks before it."""

from fedft.aggregation.accumulator import ExactAccumulator
from fedft.aggregation.interface import Aggregator, UpdateAccepted, UpdateRejected
from fedft.aggregation.round import RoundAggregator, Weighting

__all__ = [
    "Aggregator",
    "ExactAccumulator",
    "RoundAggregator",
    "UpdateAccepted",
    "UpdateRejected",
    "Weighting",
]
