"""Asking every connected node who it is, and checking that it can take part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flwr.app import MessageType
from flwr.serverapp import Grid

from fedft.errors import FedftError
from fedft.server.dispatch import Broadcast, read_reply
from fedft.server.exchange import Answer, Terms, exchange
from fedft.server.instructions import InstructionBook
from fedft.server.roster import Member, Roster, wait_for_nodes
from fedft.server.settle import answer_record
from fedft.store import Delivery, UpdateRecord
from fedft.wire import Hello, Refusal

_CONNECT_TIMEOUT = 120.0


def call_roll(
    grid: Grid, book: InstructionBook, *, wanted: int, stopped: Callable[[], bool] = lambda: False
) -> tuple[Roster, list[UpdateRecord], list[Delivery]]:
    """Say hello to every node; return those that can take part, a record of each, and what was delivered.

    Raises:
        FedftError: FEDFT-6101 when fewer than ``wanted`` clients can take part, FEDFT-6103 when two nodes
            claim the same client.

    """
    nodes = wait_for_nodes(grid, wanted, timeout=_CONNECT_TIMEOUT, stopped=stopped)
    instruction, setup = book.hello()
    broadcast = Broadcast(instruction, setup)
    requests = [broadcast.request(f"node-{node}", node, has_setup=False) for node in nodes]
    rounds = book.config.rounds
    terms = Terms(MessageType.QUERY, "0", rounds.deadline, rounds.retries, stopped)
    roster: Roster = {}
    records, deliveries = [], []
    for answer in exchange(grid, requests, terms, broadcast.follow_up):
        member, record = _settle(answer, book)
        records.append(record)
        if member is None:
            continue
        if member.client in roster:
            raise FedftError(
                "FEDFT-6103",
                f"nodes {roster[member.client].node_id} and {member.node_id} both answer as {member.client}",
                hint="give each node its own partition-id",
            )
        roster[member.client] = member
        deliveries.append(Delivery(member.client, instruction.setup_digest))
    _require(roster, wanted, records)
    return dict(sorted(roster.items())), sorted(records, key=lambda r: r.client), deliveries


def _settle(answer: Answer, book: InstructionBook) -> tuple[Member | None, UpdateRecord]:
    if answer.failure:
        return None, answer_record(answer, "late" if answer.late else "failed", message=answer.failure)
    client = ""
    try:
        reply = read_reply(answer.envelope, book.max_reply_bytes)
        client = reply.client_id if isinstance(reply, Refusal | Hello) else ""
        if isinstance(reply, Refusal):
            raise FedftError(reply.code, reply.message)
        if not isinstance(reply, Hello):
            raise FedftError("FEDFT-6104", f"answered hello with {type(reply).__name__}")
        _check_base(reply, book)
    except FedftError as error:
        return None, answer_record(answer, "refused", client=client, code=error.code, message=error.message)
    member = Member(reply.client_id, answer.request.node_id, reply.num_examples)
    return member, answer_record(answer, "accepted", client=member.client, num_examples=reply.num_examples)


def _check_base(hello: Hello, book: InstructionBook) -> None:
    expected = book.model.session.base_digest
    if hello.base_digest != expected:
        raise FedftError(
            "FEDFT-2010",
            f"base model digest {hello.base_digest[:16]}…, the run's is {expected[:16]}…",
            hint="the client holds other weights; check model.source and model.revision",
        )


def _require(roster: Roster, wanted: int, records: Sequence[UpdateRecord]) -> None:
    if len(roster) >= wanted:
        return
    reasons = "; ".join(
        f"{r.client}: {r.code} {r.message}".strip() for r in records if r.status != "accepted"
    )
    raise FedftError("FEDFT-6101", f"{len(roster)} of {wanted} clients can take part: {reasons}")
