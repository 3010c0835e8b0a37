"""One step of secure aggregation as a phase of a round, and what all steps of a round cost each client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import MessageType

from fedft.coordinator.broadcast import Broadcast, delivery, read_reply
from fedft.coordinator.collect import answer_record
from fedft.coordinator.exchange import Answer, Request
from fedft.errors import Code, FedftError
from fedft.store import Delivery, UpdateRecord
from fedft.wire import Refusal, RoundRef, SecaggAnswer
from fedft.wire.decode import MAX_SECAGG
from fedft.wire.peer_error import as_peer_error

_MAX_ANSWER = MAX_SECAGG + (1 << 12)


@dataclass(frozen=True)
class StepOutcome:
    """A record of each client that was asked, and who was given the setup."""

    records: list[UpdateRecord]
    deliveries: list[Delivery]


class StepPhase:
    """Asks clients for one step; an answer that the protocol refuses leaves its client out.

    Args:
        at: run and round.
        broadcasts: what each client is sent.
        requests: addressed to them.
        accept: takes a client's message; raises where it is not what the step asks for.

    """

    message_type = MessageType.TRAIN

    def __init__(
        self,
        at: RoundRef,
        broadcasts: Mapping[str, Broadcast],
        requests: Sequence[Request],
        accept: Callable[[str, bytes], None],
    ) -> None:
        self._at, self._broadcasts, self._requests, self._accept = at, broadcasts, requests, accept
        self._outcome = StepOutcome([], [])

    @property
    def number(self) -> int:
        """The round that it belongs to."""
        return self._at.round

    def request(self) -> Sequence[Request]:
        """Ask every client of the step."""
        return self._requests

    def follow_up(self, answer: Answer) -> Request | None:
        """Send the setup to a client that lacks it."""
        return self._broadcasts[answer.request.client].follow_up(answer)

    def take(self, answer: Answer) -> None:
        """Take one client's message, or record why it does not count."""
        client = answer.request.client
        self._outcome.records.append(self._record(answer, client))
        item = delivery(answer, self._broadcasts[client].instruction.setup_digest)
        if item is not None:
            self._outcome.deliveries.append(item)

    def close(self) -> StepOutcome:
        """Return the records; whether enough have answered is the protocol's to say."""
        return self._outcome

    def _record(self, answer: Answer, client: str) -> UpdateRecord:
        if answer.failure:
            return answer_record(answer, "late" if answer.late else "failed", message=answer.failure)
        try:
            self._accept(client, self._message(answer, client))
        except Exception as problem:
            error = as_peer_error(problem)
            return answer_record(answer, "refused", code=error.code, message=error.message)
        return answer_record(answer, "accepted")

    def _message(self, answer: Answer, client: str) -> bytes:
        reply = read_reply(answer.envelope, _MAX_ANSWER)
        if isinstance(reply, Refusal):
            raise FedftError(reply.code, reply.message)
        if not isinstance(reply, SecaggAnswer) or (reply.round, reply.client_id) != (self._at, client):
            raise FedftError(Code.UNEXPECTED_REPLY, f"sent {type(reply).__name__}, not this step's answer")
        return reply.message


@dataclass
class StepTally:
    """What the steps of one round cost each client, and where it fell out first."""

    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    bytes_setup: dict[str, int] = field(default_factory=dict)
    fallen: dict[str, UpdateRecord] = field(default_factory=dict)

    def add(self, records: Iterable[UpdateRecord]) -> None:
        """Count a step."""
        for record in records:
            for name in ("bytes_up", "bytes_down", "bytes_setup"):
                counted = getattr(self, name)
                counted[record.client] = counted.get(record.client, 0) + getattr(record, name)
            if record.status != "accepted":
                self.fallen.setdefault(record.client, record)

    def joined(self, trained: Iterable[UpdateRecord]) -> list[UpdateRecord]:
        """Return the round's records, the steps' bytes in them, those that never trained among them."""
        records = {
            client: replace(record, bytes_up=0, bytes_down=0, bytes_setup=0)
            for client, record in self.fallen.items()
        }
        records |= {record.client: record for record in trained}
        return [
            replace(
                record,
                bytes_up=record.bytes_up + self.bytes_up.get(client, 0),
                bytes_down=record.bytes_down + self.bytes_down.get(client, 0),
                bytes_setup=record.bytes_setup + self.bytes_setup.get(client, 0),
            )
            for client, record in sorted(records.items())
        ]
