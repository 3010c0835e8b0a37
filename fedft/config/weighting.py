"""The weights of a round's average, where a run does not name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedft.registries import AGGREGATION_RULES, PRIVACY_MODELS


def with_weighting(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's table with uniform weights where there can be no others.

    Private clients do not say how many examples they have, and rules against hostile clients go by no number
    that these state. What the table says itself stays; what is wrong in it is found later.
    """
    rounds = table.get("rounds", {})
    if not isinstance(rounds, Mapping) or "weighting" in rounds or not _must_be_uniform(table):
        return dict(table)
    return {**table, "rounds": {**rounds, "weighting": "uniform"}}


def _must_be_uniform(table: Mapping[str, Any]) -> bool:
    model = _named(table, "privacy", "mechanism")
    rule = _named(table, "aggregation", "rule")
    private = model in PRIVACY_MODELS and PRIVACY_MODELS.get(model).private
    return private or (rule in AGGREGATION_RULES and AGGREGATION_RULES.get(rule).needs_single_updates)


def _named(table: Mapping[str, Any], section: str, key: str) -> str:
    found = table.get(section)
    name = found.get(key) if isinstance(found, Mapping) else None
    return name if isinstance(name, str) else ""
