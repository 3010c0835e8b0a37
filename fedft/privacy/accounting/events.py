"""The units of the accounting: releases, budgets and claims."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedft.errors import Code, FedftError

MAX_STEPS = 1_000_000
"""Equal releases that are accounted for; the work and the memory of accounting grow with their number."""


@dataclass(frozen=True)
class PrivacyEvent:
    """`steps` releases of the sampled Gaussian mechanism.

    Attributes:
        noise_multiplier: standard deviation of the noise over the L2 bound of one unit's contribution.
        sample_rate: probability that a unit is in one batch, in (0, 1]; 1 claims no amplification.
        steps: number of releases, at most ``MAX_STEPS``.
        max_batch: cap of truncated Poisson sampling; None for Poisson sampling.
        examples: size of the data set; needed with `max_batch` alone.

    Raises:
        FedftError: FEDFT-8002 for a value out of its range.

    """

    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1
    max_batch: int | None = None
    examples: int | None = None

    def __post_init__(self) -> None:
        in_range = (
            0 < self.noise_multiplier < math.inf
            and 0 < self.sample_rate <= 1
            and isinstance(self.steps, int)
            and 1 <= self.steps <= MAX_STEPS
            and (self.max_batch is None) == (self.examples is None)
            and (self.max_batch is None or self.max_batch >= 1)
            and (self.examples is None or self.examples >= 1)
        )
        if not in_range:
            raise FedftError(
                Code.PRIVACY_EVENT_INVALID, f"not a private release that can be accounted for: {self}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for storage."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Budget:
    """The most that may be spent on one data set: (ε, δ) over everything ever released from it."""

    epsilon: float
    delta: float


@dataclass(frozen=True)
class Claim:
    """What was spent: ε at δ by privacy loss distributions, and the looser Rényi bound where it exists."""

    epsilon: float
    delta: float
    rdp_epsilon: float | None


def check_delta(delta: float, examples: int) -> None:
    """Refuse a δ that would allow publishing a whole example.

    Raises:
        FedftError: FEDFT-8001 unless 0 < δ < 1/examples.

    """
    if not 0 < delta < 1 / max(examples, 1):
        raise FedftError(
            Code.DELTA_OUT_OF_RANGE,
            f"delta is {delta:g} and must lie between 0 and 1/{examples} (one over the number of examples)",
            hint="a smaller delta, usually a tenth of 1/examples",
        )


def merge(events: Iterable[PrivacyEvent]) -> list[PrivacyEvent]:
    """Join equal releases into one event with the sum of their steps, in a fixed order.

    Raises:
        FedftError: FEDFT-8002 for more than ``MAX_STEPS`` equal releases.

    """
    steps: dict[PrivacyEvent, int] = {}
    for event in events:
        kind = replace(event, steps=1)
        steps[kind] = steps.get(kind, 0) + event.steps
    return sorted((replace(kind, steps=count) for kind, count in steps.items()), key=repr)
