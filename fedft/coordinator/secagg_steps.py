"""Asking the clients of one round for the steps of secure aggregation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fedft.coordinator.broadcast import Broadcast
from fedft.coordinator.exchange import Request
from fedft.coordinator.instructions import InstructionBuilder
from fedft.coordinator.phase import PhaseDriver
from fedft.coordinator.secagg_step import StepPhase, StepTally
from fedft.store import Delivery
from fedft.wire import InstructionKind, RoundRef

Addressed = Callable[[Broadcast, Sequence[str]], Sequence[Request]]


@dataclass(frozen=True)
class StepDriver:
    """Carries the steps of one round out and keeps what they cost.

    Args:
        at: run and round.
        book: builds the instructions.
        driver: of phases.
        addressed: returns a broadcast's requests to clients.
        delivered: told who was given the setup.

    """

    at: RoundRef
    book: InstructionBuilder
    driver: PhaseDriver
    addressed: Addressed
    delivered: Callable[[Sequence[Delivery]], None]
    tally: StepTally = field(default_factory=StepTally)

    def ask(
        self,
        kind: InstructionKind,
        messages: Mapping[str, bytes],
        accept: Callable[[str, bytes], None],
    ) -> None:
        """Send each client its message; ``accept`` takes the answers and raises on one that is refused."""
        distinct = {message: self._broadcast(kind, message) for message in set(messages.values())}
        broadcasts = {client: distinct[message] for client, message in messages.items()}
        requests = [
            request
            for message, broadcast in distinct.items()
            for request in self.addressed(broadcast, [c for c in messages if messages[c] == message])
        ]
        outcome = self.driver.run(StepPhase(self.at, broadcasts, requests, accept))
        self.tally.add(outcome.records)
        self.delivered(outcome.deliveries)

    def _broadcast(self, kind: InstructionKind, message: bytes) -> Broadcast:
        return Broadcast(self.book.step(kind, self.at.round, message), self.book.model.setup)
