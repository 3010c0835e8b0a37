"""Measuring a state: by the server on the test records, and by the clients on theirs."""

from __future__ import annotations

from collections import defaultdict

from fedft.coordinator.broadcast import read_reply
from fedft.coordinator.exchange import Answer
from fedft.errors import Code, FedftError
from fedft.store import EvaluationRecord
from fedft.tensors import Arrays
from fedft.training.metrics import Metrics
from fedft.training.model_runtime import ModelRuntime
from fedft.wire import Evaluation
from fedft.wire.peer_error import as_peer_error


def evaluate_centrally(runtime: ModelRuntime, state: Arrays) -> tuple[EvaluationRecord, ...]:
    """Measure a state on the test records, as a whole and by group."""
    runtime.load(state)
    samples, _ = runtime.test
    return records_of(runtime.evaluate(samples), "central")


def records_of(metrics: Metrics, scope: str) -> tuple[EvaluationRecord, ...]:
    """Turn metrics into records, the whole set first."""
    groups = metrics.group_values()
    sizes = {name: means["loss"].count for name, means in metrics.groups.items()}
    whole = EvaluationRecord(scope, "", metrics.samples, metrics.values())
    return whole, *(EvaluationRecord(scope, name, sizes[name], groups[name]) for name in sorted(groups))


class EvaluationTally:
    """Joins the clients' own evaluations, each weighted by its number of samples."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._examples = 0
        self._sums: dict[str, float] = defaultdict(float)
        self.problems: list[str] = []

    def add(self, answer: Answer) -> None:
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
            self.problems.append(f"{client}: {as_peer_error(error)}")
            return
        self._examples += reply.num_examples
        for name, value in reply.metrics.items():
            self._sums[name] += reply.num_examples * value

    def records(self) -> tuple[EvaluationRecord, ...]:
        """Return the joint metrics; nothing when no client evaluated."""
        if not self._examples:
            return ()
        means = {name: total / self._examples for name, total in sorted(self._sums.items())}
        return (EvaluationRecord("federated", "", self._examples, means),)
