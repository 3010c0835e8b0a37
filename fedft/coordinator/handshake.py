"""The first phase of a run: every connected node says who it is, and whether it can take part is checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import MessageType

from fedft.coordinator.broadcast import Broadcast, read_reply
from fedft.coordinator.collect import answer_record
from fedft.coordinator.exchange import Answer, Request
from fedft.coordinator.participants import Participant, Participants
from fedft.errors import Code, FedftError
from fedft.secagg.introduction import introduced
from fedft.secagg.session import IDENTITY_BYTES
from fedft.store import Delivery, UpdateRecord
from fedft.wire import Hello, Instruction, InstructionKind, ModelRef, Refusal, RoundRef, Setup
from fedft.wire.peer_error import as_peer_error
from fedft.wire.setups import setup_digest

_MAX_GREETING = 1 << 20
_SHOWN = 3
"""Clients that are named of those with one reason."""


@dataclass(frozen=True)
class Greeting:
    """What a handshake gave: who can take part, a record of every node, what was delivered.

    Of two nodes that claim the same client the later one is left out, with FEDFT-6103. ``base_digest`` is the
    run's: the one asked for, or the one that all sites agree on.
    """

    participants: Participants
    records: list[UpdateRecord]
    deliveries: list[Delivery]
    base_digest: str


class HandshakePhase:
    """Says hello to every node; the configuration travels with it, the frame does not yet.

    Args:
        run_id: of the run.
        config_json: its configuration.
        model: what is known of its model; an empty base digest is filled in with the sites' own, which must
            be one and the same.
        nodes: who is connected.
        codecs: wire id and version of each codec that the run's messages are in; who has another version,
            or none, takes no part.
        wanted: participants that the run needs.
        deadline: in seconds.
        masked: whether every client must show the identity that it signs with in secure aggregation.

    """

    number = 0
    message_type = MessageType.QUERY

    def __init__(
        self,
        run_id: str,
        config_json: str,
        model: ModelRef,
        nodes: Sequence[int],
        *,
        codecs: Mapping[int, int],
        wanted: int,
        deadline: float,
        masked: bool = False,
    ) -> None:
        setup = Setup(config_json)
        instruction = Instruction(
            round=RoundRef(run_id, 0),
            kind=InstructionKind.HELLO,
            model=model,
            setup_digest=setup_digest(setup),
            deadline_seconds=deadline,
        )
        self._broadcast = Broadcast(instruction, setup)
        self._setup_digest = instruction.setup_digest
        self._base_digest, self._nodes, self._wanted = model.base_digest, nodes, wanted
        self._codecs = codecs
        self._run_id, self._masked = run_id, masked
        self._participants: Participants = {}
        self._bases: dict[str, list[str]] = defaultdict(list)
        self._records: dict[int, UpdateRecord] = {}

    def request(self) -> list[Request]:
        """Ask every node."""
        return [self._broadcast.request(f"node-{node}", node, has_setup=False) for node in self._nodes]

    def follow_up(self, answer: Answer) -> Request | None:
        """Nothing can be lacking: everything was sent."""
        return self._broadcast.follow_up(answer)

    def take(self, answer: Answer) -> None:
        """Take one node's answer."""
        node = answer.request.node_id
        hello, self._records[node] = self._read(answer)
        if hello is not None:
            identity = hello.introduction[:IDENTITY_BYTES]
            member = Participant(hello.client_id, node, hello.num_examples, identity)
            self._participants[hello.client_id] = member
            self._bases[hello.base_digest].append(hello.client_id)

    def close(self) -> Greeting:
        """Return who can take part.

        Raises:
            FedftError: FEDFT-6101 when they are too few, FEDFT-6111 when the base digest is theirs to say
                and they say different ones.

        """
        records = _named_once(self._records, self._participants)
        if len(self._participants) < self._wanted:
            raise FedftError(
                Code.TOO_FEW_CLIENTS,
                f"{len(self._participants)} of {self._wanted} clients can take part: {reasons_of(records)}",
            )
        return Greeting(
            dict(sorted(self._participants.items())),
            records,
            [Delivery(client, self._setup_digest) for client in self._participants],
            self._base_digest or _agreed(self._bases),
        )

    def _read(self, answer: Answer) -> tuple[Hello | None, UpdateRecord]:
        if answer.failure:
            return None, answer_record(answer, "late" if answer.late else "failed", message=answer.failure)
        client = ""
        try:
            reply = read_reply(answer.envelope, _MAX_GREETING)
            client = reply.client_id if isinstance(reply, Refusal | Hello) else ""
            if isinstance(reply, Refusal):
                raise FedftError(reply.code, reply.message)
            if not isinstance(reply, Hello):
                raise FedftError(Code.UNEXPECTED_REPLY, f"answered hello with {type(reply).__name__}")
            self._check(reply, answer.request.node_id)
        except Exception as problem:
            error = as_peer_error(problem)
            refused = answer_record(answer, "refused", client=client, code=error.code, message=error.message)
            return None, refused
        return reply, answer_record(answer, "accepted", client=client, num_examples=reply.num_examples)

    def _check(self, hello: Hello, node_id: int) -> None:
        _check_base(hello, self._base_digest)
        _check_codecs(hello, self._codecs)
        _check_unique(hello, node_id, self._participants)
        if self._masked:
            _check_identity(hello, self._run_id, self._participants)


def reasons_of(records: Sequence[UpdateRecord]) -> str:
    """Say why clients are not among the accepted: each reason once, with the clients that it holds for."""
    clients: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if record.status != "accepted":
            clients[f"{record.code} {record.message}".strip()].append(record.client)
    return "; ".join(f"{_few(names)}: {reason}" for reason, names in clients.items())


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _agreed(bases: dict[str, list[str]]) -> str:
    if len(bases) == 1:
        return next(iter(bases))
    groups = "; ".join(f"{digest[:16]}…: {', '.join(sorted(bases[digest]))}" for digest in sorted(bases))
    raise FedftError(
        Code.BASES_DISAGREE,
        f"the sites hold {len(bases)} different base models: {groups}",
        hint="give all sites the same model.source and model.revision",
    )


def _check_base(hello: Hello, expected: str) -> None:
    if not hello.base_digest:
        raise FedftError(Code.BASE_MODEL_MISMATCH, "the client names no base model")
    if expected and hello.base_digest != expected:
        raise FedftError(
            Code.BASE_MODEL_MISMATCH,
            f"base model digest {hello.base_digest[:16]}…, the run's is {expected[:16]}…",
            hint="the client holds other weights; check model.source and model.revision",
        )


def _check_codecs(hello: Hello, codecs: Mapping[int, int]) -> None:
    for codec_id, version in codecs.items():
        if (held := hello.codecs.get(codec_id)) != version:
            found = "none" if held is None else f"version {held}"
            raise FedftError(
                Code.CODEC_UNSUPPORTED,
                f"the run is coded with version {version} of codec {codec_id}, the client has {found}",
                hint="give the site the server's version of fedft",
            )


def _check_unique(hello: Hello, node_id: int, known: Participants) -> None:
    other = known.get(hello.client_id)
    if other is not None:
        raise FedftError(
            Code.DUPLICATE_CLIENT,
            f"nodes {other.node_id} and {node_id} both answer as {hello.client_id}; the first one counts",
            hint="give each node its own partition-id",
        )


def _check_identity(hello: Hello, run_id: str, known: Participants) -> None:
    identity = introduced(hello.introduction, run_id, hello.client_id)
    if any(identity == other.identity for other in known.values()):
        raise FedftError(Code.DUPLICATE_CLIENT, "another client signs with the same identity")


def _named_once(records: Mapping[int, UpdateRecord], participants: Participants) -> list[UpdateRecord]:
    """Return the records, sorted by name, those that claim a name that is taken under their node's."""
    taken, named = set(participants), list[UpdateRecord]()
    for node, record in sorted(records.items()):
        if record.status != "accepted" and record.client in taken:
            record = replace(record, client=f"{record.client}#{node}")
        taken.add(record.client)
        named.append(record)
    return sorted(named, key=lambda record: record.client)
