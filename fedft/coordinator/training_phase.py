"""The phase of a round in which clients train and their updates are summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import MessageType

from fedft.aggregation import Aggregator
from fedft.coordinator.broadcast import Broadcast, delivery
from fedft.coordinator.collect import record_reply
from fedft.coordinator.exchange import Answer, Request
from fedft.statements import PrivacyStatement
from fedft.store import Delivery, SecaggRecord, UpdateRecord
from fedft.wire import Update

Stated = Callable[[Update], PrivacyStatement | None]


@dataclass(frozen=True)
class Collected:
    """What a training phase gave: the sum of the updates, a record of each, who was given the setup.

    ``masking`` says what masking the updates took.
    """

    aggregator: Aggregator
    updates: list[UpdateRecord]
    deliveries: list[Delivery]
    masking: SecaggRecord | None = None


class TrainingPhase:
    """Sends the round's state to a cohort and sums the updates that count.

    Args:
        number: of the round.
        broadcast: the instruction.
        requests: one for each client of the cohort.
        aggregator: checks and sums the updates.
        max_bytes: cap on an envelope.
        stated: returns what an update states about its privacy, or refuses it.
        settled: told of every record.

    """

    message_type = MessageType.TRAIN

    def __init__(
        self,
        number: int,
        broadcast: Broadcast,
        requests: Sequence[Request],
        aggregator: Aggregator,
        *,
        max_bytes: int,
        stated: Stated,
        settled: Callable[[UpdateRecord], None],
    ) -> None:
        self.number = number
        self._broadcast, self._requests, self._aggregator = broadcast, requests, aggregator
        self._max_bytes, self._stated, self._settled = max_bytes, stated, settled
        self._updates: list[UpdateRecord] = []
        self._deliveries: list[Delivery] = []

    def request(self) -> Sequence[Request]:
        """Ask the cohort."""
        return self._requests

    def follow_up(self, answer: Answer) -> Request | None:
        """Send the setup, or the whole state, to a client that lacks it."""
        return self._broadcast.follow_up(answer)

    def take(self, answer: Answer) -> None:
        """Count one update, or record why it does not count."""
        record = record_reply(answer, self._aggregator, self._max_bytes, self._stated)
        self._updates.append(record)
        self._settled(record)
        item = delivery(answer, self._broadcast.instruction.setup_digest)
        if item is not None:
            self._deliveries.append(item)

    def close(self) -> Collected:
        """Return everything; whether it is enough is the round's to say."""
        updates = sorted(self._updates, key=lambda record: record.client)
        return Collected(self._aggregator, updates, self._deliveries)
