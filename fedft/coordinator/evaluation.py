"""Measuring a state: by the server on the test records, and by the clients on theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from flwr.app import MessageType

from fedft.coordinator.broadcast import Broadcast, read_reply
from fedft.coordinator.exchange import Answer, Request
from fedft.errors import Code, FedftError
from fedft.store import EvaluationRecord
from fedft.tensors import Arrays
from fedft.training.metrics import Metrics
from fedft.training.model_runtime import ModelRuntime
from fedft.wire import Evaluation
from fedft.wire.peer_error import as_peer_error

PUBLIC = "public"
"""Scope of a start that public records alone have trained: what a run has to add to."""


def evaluate_centrally(
    runtime: ModelRuntime, state: Arrays, scope: str = "central"
) -> tuple[EvaluationRecord, ...]:
    """Measure a state on the test records, as a whole and by group."""
    runtime.load(state)
    samples, _ = runtime.data.test
    return records_of(runtime.evaluate(samples), scope)


def records_of(metrics: Metrics, scope: str) -> tuple[EvaluationRecord, ...]:
    """Turn metrics into records, the whole set first."""
    groups = metrics.group_values()
    sizes = {name: means["loss"].count for name, means in metrics.groups.items()}
    whole = EvaluationRecord(scope, "", metrics.samples, metrics.values())
    return whole, *(EvaluationRecord(scope, name, sizes[name], groups[name]) for name in sorted(groups))


class EvaluationPhase:
    """Asks every participant to measure a state on its own data and joins what they say.

    Each evaluation is weighted by its number of samples.

    Args:
        number: of the round.
        broadcast: the instruction.
        requests: one for each participant.
        max_bytes: cap on an envelope.

    """

    message_type = MessageType.EVALUATE

    def __init__(
        self, number: int, broadcast: Broadcast, requests: Sequence[Request], max_bytes: int
    ) -> None:
        self.number = number
        self._broadcast, self._requests, self._max_bytes = broadcast, requests, max_bytes
        self._examples = 0
        self._sums: dict[str, float] = defaultdict(float)
        self._problems: list[str] = []

    def request(self) -> Sequence[Request]:
        """Ask every participant."""
        return self._requests

    def follow_up(self, answer: Answer) -> Request | None:
        """Send the setup, or the whole state, to a client that lacks it."""
        return self._broadcast.follow_up(answer)

    def take(self, answer: Answer) -> None:
        """Add one client's answer; what is not an evaluation is kept as a problem."""
        client = answer.request.client
        try:
            if answer.failure:
                raise FedftError(Code.UNEXPECTED_REPLY, answer.failure)
            reply = read_reply(answer.envelope, self._max_bytes)
            if not isinstance(reply, Evaluation) or not reply.num_examples:
                raise FedftError(
                    Code.UNEXPECTED_REPLY, f"sent {type(reply).__name__}: {getattr(reply, 'message', '')}"
                )
        except Exception as error:
            self._problems.append(f"{client}: {as_peer_error(error)}")
            return
        self._examples += reply.num_examples
        for name, value in reply.metrics.items():
            self._sums[name] += reply.num_examples * value

    def close(self) -> tuple[tuple[EvaluationRecord, ...], list[str]]:
        """Return the joint metrics, nothing when no client evaluated, and who did not and why."""
        if not self._examples:
            return (), self._problems
        means = {name: total / self._examples for name, total in sorted(self._sums.items())}
        return (EvaluationRecord("federated", "", self._examples, means),), self._problems
