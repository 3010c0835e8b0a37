"""How the updates of a round become one: the exact mean, and rules that a few hostile clients cannot rule."""

from fedft.aggregation.rules.interface import AggregationRule, Collector, Verdict

__all__ = ["AggregationRule", "Collector", "Verdict"]
