"""What no private run may do, whatever its unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedft.config.rules import Contradiction, reads_public

if TYPE_CHECKING:
    from fedft.config import RunConfig

MECHANISM = "privacy.mechanism"


def weighs_and_tells_nothing(config: RunConfig) -> Iterator[Contradiction]:
    """Yield what would leave private data unaccounted for."""
    if config.rounds.weighting == "examples":
        yield Contradiction(
            "rounds.weighting",
            'private clients weigh the same, whatever their data; use "uniform"',
            (MECHANISM,),
        )
    if config.evaluation.federated:
        yield Contradiction(
            "evaluation.federated",
            "metrics of private data would leave without being accounted for",
            (MECHANISM,),
        )
    data = config.data
    if reads_public(config) and data.public == data.train != "demo":
        yield Contradiction(
            "data.public",
            "the run's start would be made of private records; name public ones, or another "
            "adapter.initialiser",
            (MECHANISM, "adapter.initialiser", "data.train", "public.steps", "public.epochs"),
        )
