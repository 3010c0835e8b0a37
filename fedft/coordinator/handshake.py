"""Asking every connected node who it is, and checking that it can take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flwr.app import MessageType
from flwr.serverapp import Grid

from fedft.coordinator.broadcast import Broadcast, read_reply
from fedft.coordinator.collect import answer_record
from fedft.coordinator.exchange import Answer, ExchangeOptions, exchange
from fedft.coordinator.instructions import InstructionBuilder
from fedft.coordinator.participants import Participant, Participants, wait_for_nodes
from fedft.errors import Code, FedftError
from fedft.store import Delivery, UpdateRecord
from fedft.wire import Hello, Refusal
from fedft.wire.peer_error import as_peer_error

_CONNECT_TIMEOUT = 120.0


def handshake(
    grid: Grid, book: InstructionBuilder, *, wanted: int, stopped: Callable[[], bool] = lambda: False
) -> tuple[Participants, list[UpdateRecord], list[Delivery]]:
    """Say hello to every node; return those that can take part, a record of each, and what was delivered.

    Of two nodes that claim the same client the later one is left out, with FEDFT-6103.

    Raises:
        FedftError: FEDFT-6101 when fewer than ``wanted`` clients can take part.

    """
    nodes = wait_for_nodes(grid, wanted, timeout=_CONNECT_TIMEOUT, stopped=stopped)
    instruction, setup = book.hello()
    broadcast = Broadcast(instruction, setup)
    requests = [broadcast.request(f"node-{node}", node, has_setup=False) for node in nodes]
    rounds = book.config.rounds
    terms = ExchangeOptions(MessageType.QUERY, "0", rounds.deadline, rounds.retries, stopped)
    participants: Participants = {}
    records, deliveries = dict[int, UpdateRecord](), list[Delivery]()
    for answer in exchange(grid, requests, terms, broadcast.follow_up):
        member, record = _settle(answer, book, participants)
        records[answer.request.node_id] = record
        if member is None:
            continue
        participants[member.client] = member
        deliveries.append(Delivery(member.client, instruction.setup_digest))
    named = _named_once(records, participants)
    _require(participants, wanted, named)
    return dict(sorted(participants.items())), named, deliveries


def _settle(
    answer: Answer, book: InstructionBuilder, known: Participants
) -> tuple[Participant | None, UpdateRecord]:
    if answer.failure:
        return None, answer_record(answer, "late" if answer.late else "failed", message=answer.failure)
    client = ""
    try:
        reply = read_reply(answer.envelope, book.max_reply_bytes)
        client = reply.client_id if isinstance(reply, Refusal | Hello) else ""
        if isinstance(reply, Refusal):
            raise FedftError(reply.code, reply.message)
        if not isinstance(reply, Hello):
            raise FedftError(Code.UNEXPECTED_REPLY, f"answered hello with {type(reply).__name__}")
        _check_base(reply, book)
        _check_unique(reply, answer.request.node_id, known)
    except Exception as problem:
        error = as_peer_error(problem)
        return None, answer_record(answer, "refused", client=client, code=error.code, message=error.message)
    member = Participant(reply.client_id, answer.request.node_id, reply.num_examples)
    return member, answer_record(answer, "accepted", client=member.client, num_examples=reply.num_examples)


def _check_base(hello: Hello, book: InstructionBuilder) -> None:
    expected = book.model.runtime.base_digest
    if hello.base_digest != expected:
        raise FedftError(
            Code.BASE_MODEL_MISMATCH,
            f"base model digest {hello.base_digest[:16]}…, the run's is {expected[:16]}…",
            hint="the client holds other weights; check model.source and model.revision",
        )


def _named_once(records: Mapping[int, UpdateRecord], participants: Participants) -> list[UpdateRecord]:
    """Return the records, sorted by name, those that claim a name that is taken under their node's."""
    taken, named = set(participants), list[UpdateRecord]()
    for node, record in sorted(records.items()):
        if record.status != "accepted" and record.client in taken:
            record = replace(record, client=f"{record.client}#{node}")
        taken.add(record.client)
        named.append(record)
    return sorted(named, key=lambda record: record.client)


def _check_unique(hello: Hello, node_id: int, known: Participants) -> None:
    other = known.get(hello.client_id)
    if other is not None:
        raise FedftError(
            Code.DUPLICATE_CLIENT,
            f"nodes {other.node_id} and {node_id} both answer as {hello.client_id}; the first one counts",
            hint="give each node its own partition-id",
        )


def _require(participants: Participants, wanted: int, records: Sequence[UpdateRecord]) -> None:
    if len(participants) >= wanted:
        return
    reasons = "; ".join(
        f"{r.client}: {r.code} {r.message}".strip() for r in records if r.status != "accepted"
    )
    raise FedftError(
        Code.TOO_FEW_CLIENTS, f"{len(participants)} of {wanted} clients can take part: {reasons}"
    )
