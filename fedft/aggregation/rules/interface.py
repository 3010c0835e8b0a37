"""What an aggregation rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from fedft.codecs import DecodedUpdate
from fedft.options import NoOptions, Options
from fedft.tensors import Arrays

if TYPE_CHECKING:
    from fedft.aggregation.accumulator import ExactAccumulator
    from fedft.config import RunConfig
    from fedft.config.rules import Contradiction


@dataclass(frozen=True)
class Verdict:
    """What a rule made of one client's update.

    Attributes:
        kept: the share of it that counted, in [0, 1]; what a share is, the rule says.
        distance: L2 distance of the update, as it came, to the round's result.

    """

    kept: float
    distance: float


class Collector(Protocol):
    """Takes the checked updates of one round, one for each client, and makes one of them."""

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """By client, of the last result; empty where the rule judges nobody."""

    def add(self, client: str, update: DecodedUpdate, weight: int) -> None:
        """Take an update, all or nothing; raises as ``ExactAccumulator.add_decoded`` does."""

    def result(self) -> Arrays:
        """Return what moves the state; the same bits for every order of arrival."""


class AggregationRule(ABC):
    """Makes one update of a round's. A subclass is a frozen dataclass whose fields are its options.

    Attributes:
        name: in the configuration.
        options: schema of what it can be told.
        needs_single_updates: whether it looks at each update by itself, so that their sum does not suffice:
            the server must see and keep them all.

    """

    name: ClassVar[str]
    options: ClassVar[type[Options]] = NoOptions
    needs_single_updates: ClassVar[bool]

    def configured(self, options: Options) -> Self:
        """Return this rule with options."""
        return replace(self, **options.model_dump())  # type: ignore[type-var]

    @property
    def fewest_updates(self) -> int:
        """How many updates its assumption needs."""
        return 1

    def contradictions(self, config: RunConfig) -> Iterator[Contradiction]:
        """Yield what this rule cannot be combined with; imports no model library."""
        yield from ()

    @abstractmethod
    def collector(self, accumulator: ExactAccumulator) -> Collector:
        """Return what takes a round's updates; the accumulator has the manifest, the seed and the limits."""
