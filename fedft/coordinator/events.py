"""What the coordinator tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fedft.store import RoundRecord, UpdateRecord


@dataclass(frozen=True)
class RunStarted:
    """A run begins, or goes on after ``first_round - 1`` committed rounds."""

    run_id: str
    name: str
    first_round: int
    total_rounds: int


@dataclass(frozen=True)
class PhaseStarted:
    """The coordinator begins something that takes time; ``total`` steps, 0 when unknown."""

    round: int
    phase: Literal["model", "clients", "frame", "training", "evaluation"]
    total: int = 0


@dataclass(frozen=True)
class ClientAnswered:
    """A client's part in the current round is settled."""

    round: int
    update: UpdateRecord


@dataclass(frozen=True)
class RoundCommitted:
    """A round is on disk."""

    record: RoundRecord


@dataclass(frozen=True)
class Notice:
    """Something that the operator should know; also kept in the run's history."""

    kind: str
    message: str


@dataclass(frozen=True)
class RunFinished:
    """The last round is committed."""

    run_id: str
    digest: str


Event = RunStarted | PhaseStarted | ClientAnswered | RoundCommitted | Notice | RunFinished
Observer = Callable[[Event], None]


def nobody(_event: Event) -> None:
    """Watch nothing."""
