"""What no private run may do, whatever its unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedft.config.rules import Contradiction
from fedft.registries import METHODS

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
    frame, data = METHODS.get(config.method).frame_facts(config), config.data
    if frame.needs == "gradients" and data.public == data.train != "demo":
        yield Contradiction(
            "data.public",
            "the frame would be built from private records; name public ones, or another adapter.initialiser",
            (MECHANISM, "adapter.initialiser", "data.train"),
        )
