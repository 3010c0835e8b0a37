"""The aggregation rule that a run's configuration names."""

from __future__ import annotations

from fedft.aggregation.rules.interface import AggregationRule
from fedft.config.schema import AggregationSection
from fedft.registries import AGGREGATION_RULES


def configured_rule(section: AggregationSection) -> AggregationRule:
    """Build the rule of a run's rounds."""
    return AGGREGATION_RULES.get(section.rule).configured(section.options)
