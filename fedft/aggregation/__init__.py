"""Exact, order-free averaging of updates, and the checks before it."""

from fedft.aggregation.accumulator import ExactAccumulator
from fedft.aggregation.round import RoundAggregator, UpdateAccepted, UpdateRejected, Weighting

__all__ = ["ExactAccumulator", "RoundAggregator", "UpdateAccepted", "UpdateRejected", "Weighting"]
