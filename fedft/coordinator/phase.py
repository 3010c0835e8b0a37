"""One exchange of a round with a set of clients, and what carries it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flwr.serverapp import Grid

from fedft.config.schema import RoundsSection
from fedft.coordinator.exchange import Answer, ExchangeOptions, Request, exchange

Outcome = TypeVar("Outcome", covariant=True)


class Phase(Protocol[Outcome]):
    """Asks clients for one thing, takes their answers as they come, and makes something of them all.

    A phase carries its state from its request to its close. A round of several exchanges is several phases,
    each made of the outcome of the one before; at the client, one handler answers each kind of instruction.
    """

    @property
    def number(self) -> int:
        """The round that it belongs to."""

    @property
    def message_type(self) -> str:
        """Flower's type of the messages."""

    def request(self) -> Sequence[Request]:
        """Return what is sent, one envelope for each client that is asked."""

    def follow_up(self, answer: Answer) -> Request | None:
        """Return a further request to a client that lacks something; None where the answer is final."""

    def take(self, answer: Answer) -> None:
        """Take one client's final answer, a failure or a late one among them; it harms that client alone."""

    def close(self) -> Outcome:
        """Return what came of it; raises where too few answers are of use."""


@dataclass(frozen=True)
class PhaseDriver:
    """Carries phases out over a grid.

    Args:
        grid: Flower's carrier of messages.
        rounds: deadline of every phase, and attempts at a client whose process failed.
        stopped: asked between messages; True ends the phase with ``KeyboardInterrupt``.

    """

    grid: Grid
    rounds: RoundsSection
    stopped: Callable[[], bool] = lambda: False

    def run(self, phase: Phase[Outcome]) -> Outcome:
        """Carry one phase out; raises as `exchange` and the phase's close do."""
        options = ExchangeOptions(
            phase.message_type, str(phase.number), self.rounds.deadline, self.rounds.retries, self.stopped
        )
        for answer in exchange(self.grid, phase.request(), options, phase.follow_up):
            phase.take(answer)
        return phase.close()
