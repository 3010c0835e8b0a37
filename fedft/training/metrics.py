"""Metrics as values that add: sums and counts over samples, so that parts of a data set can be joined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Mean:
    """A mean kept as its sum and its count."""

    total: float = 0.0
    count: int = 0

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        """The mean; not a number for no samples."""
        return self.total / self.count if self.count else math.nan


Means = Mapping[str, Mean]


@dataclass(frozen=True)
class Metrics:
    """Means by name, for all samples and for each group of them; ``+`` joins disjoint sets of samples.

    Names: "loss" (mean over samples of a sample's loss, nats), "token_loss" (mean over loss tokens,
    nats; causal LM), "exact_match" (causal LM) and "accuracy" (classification), both in 0..1.
    """

    means: Means = field(default_factory=dict)
    groups: Mapping[str, Means] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of samples that the loss was taken over."""
        return self.means["loss"].count if "loss" in self.means else 0

    def __add__(self, other: Metrics) -> Metrics:
        names = sorted({*self.groups, *other.groups})
        return Metrics(
            _join(self.means, other.means),
            {name: _join(self.groups.get(name, {}), other.groups.get(name, {})) for name in names},
        )

    def values(self) -> dict[str, float]:
        """Plain numbers, with the perplexity ``exp(token_loss)`` where there is one."""
        return _values(self.means)

    def group_values(self) -> dict[str, dict[str, float]]:
        """The same for every group."""
        return {name: _values(means) for name, means in self.groups.items()}

    def to_json(self) -> dict[str, Any]:
        """Sums and counts as plain JSON values; `from_json` is its inverse."""
        groups = {name: _to_json(means) for name, means in self.groups.items()}
        return {"means": _to_json(self.means), "groups": groups}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Metrics:
        """Metrics from what `to_json` gave."""
        groups = {name: _from_json(means) for name, means in value["groups"].items()}
        return cls(_from_json(value["means"]), groups)


def tally(rows: Iterable[tuple[str, Mapping[str, Mean]]]) -> Metrics:
    """Metrics of samples given one by one as (group, means); the group "" is counted in the whole only."""
    total: dict[str, Mean] = {}
    groups: dict[str, dict[str, Mean]] = {}
    for group, means in rows:
        for target in (total, groups.setdefault(group, {})):
            target.update(_join(target, means))
    groups.pop("", None)
    return Metrics(total, dict(sorted(groups.items())))


def _join(left: Means, right: Means) -> dict[str, Mean]:
    names = dict.fromkeys([*left, *right])
    return {name: left.get(name, Mean()) + right.get(name, Mean()) for name in names}


def _values(means: Means) -> dict[str, float]:
    values = {name: mean.value for name, mean in means.items()}
    if "token_loss" in values:
        values["perplexity"] = math.exp(min(values["token_loss"], LARGEST_EXPONENT))
    return values


def _to_json(means: Means) -> dict[str, list[float]]:
    return {name: [mean.total, mean.count] for name, mean in means.items()}


def _from_json(value: Mapping[str, Any]) -> dict[str, Mean]:
    return {name: Mean(float(total), int(count)) for name, (total, count) in value.items()}
