"""Exact, order-free averaging of updates, and the checks before it."""

from fedft.aggregation.accumulator import ExactAccumulator
from fedft.aggregation.round import Accepted, Refused, RoundAggregator, Weighting

__all__ = ["Accepted", "ExactAccumulator", "Refused", "RoundAggregator", "Weighting"]
