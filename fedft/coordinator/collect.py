"""From a client's answer in a training round to its record, through the aggregator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from fedft.aggregation import Aggregator, UpdateRejected
from fedft.aggregation.rules import Verdict
from fedft.coordinator.broadcast import read_reply
from fedft.coordinator.exchange import Answer
from fedft.errors import Code, FedftError
from fedft.statements import PrivacyStatement
from fedft.store import UpdateRecord
from fedft.wire import Refusal, Update
from fedft.wire.peer_error import as_peer_error


def record_reply(
    answer: Answer,
    aggregator: Aggregator,
    max_bytes: int,
    stated: Callable[[Update], PrivacyStatement | None],
) -> UpdateRecord:
    """Offer the client's update to the aggregator; whatever is wrong with it harms this client only.

    Args:
        answer: what came of the request.
        aggregator: of the round.
        max_bytes: cap on the envelope.
        stated: returns what an update states about its privacy; raises when that is not what was asked for.

    """
    if answer.failure:
        return answer_record(answer, "late" if answer.late else "failed", message=answer.failure)
    try:
        reply = _read_update(answer, max_bytes)
        privacy = stated(reply)
    except Exception as problem:
        error = as_peer_error(problem)
        return answer_record(answer, "refused", code=error.code, message=error.message)
    verdict = aggregator.offer(answer.request.client, reply)
    if isinstance(verdict, UpdateRejected):
        return answer_record(answer, "refused", code=verdict.code, message=verdict.message)
    return answer_record(
        answer,
        "accepted",
        weight=verdict.weight,
        num_examples=reply.num_examples,
        digest=hashlib.sha256(answer.envelope).hexdigest(),
        metrics=dict(reply.metrics),
        privacy=privacy,
    )


def with_verdicts(records: Sequence[UpdateRecord], verdicts: Mapping[str, Verdict]) -> list[UpdateRecord]:
    """Add to the records what the round's aggregation rule made of the updates."""
    return [
        replace(record, kept=verdict.kept, distance=verdict.distance)
        if (verdict := verdicts.get(record.client))
        else record
        for record in records
    ]


def _read_update(answer: Answer, max_bytes: int) -> Update:
    reply = read_reply(answer.envelope, max_bytes)
    if isinstance(reply, Refusal):
        raise FedftError(reply.code, reply.message)
    if not isinstance(reply, Update):
        raise FedftError(Code.UNEXPECTED_REPLY, f"sent {type(reply).__name__}, not an update")
    return reply


def answer_record(
    answer: Answer,
    status: Literal["accepted", "refused", "failed", "late"],
    *,
    client: str = "",
    code: str = "",
    message: str = "",
    weight: int = 0,
    num_examples: int = 0,
    digest: str = "",
    metrics: dict[str, float] | None = None,
    privacy: PrivacyStatement | None = None,
) -> UpdateRecord:
    """Return the record of an answer: what was decided, and the bytes and seconds that it took."""
    request = answer.request
    return UpdateRecord(
        client=client or request.client,
        status=status,
        code=code,
        message=message,
        weight=weight,
        num_examples=num_examples,
        digest=digest,
        bytes_up=len(answer.envelope),
        bytes_down=request.bytes_down,
        bytes_setup=request.bytes_setup,
        seconds=answer.seconds,
        metrics=metrics or {},
        privacy=privacy,
    )
