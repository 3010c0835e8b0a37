"""Flower's ``Grid`` over the gRPC link."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Error, Message

from fedft import clock
from fedft.errors import FedftError
from fedft.transport.broker import Broker, Outgoing
from fedft.transport.flower_messages import OwnGrid
from fedft.transport.flower_records import pack, unpack
from fedft.wire import open_envelope, seal

_LONGEST_PULL = 1.0
_LARGEST = 2**31 - 1
_NEVER = 0  # Flower's number for an error that it does not know


class GrpcGrid(OwnGrid):
    """Carries the coordinator's messages to connected sites, each envelope signed with the server's key.

    Nodes are keys: a site that reconnects has the same node id. A message to an absent site waits for it
    until its time to live is over.
    """

    def __init__(self, board: Broker, key: Ed25519PrivateKey) -> None:
        self._board, self._key = board, key
        self._sent: dict[str, Message] = {}
        self._last_signed: tuple[bytes, bytes, str] = (b"", b"", "")

    def set_run(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: envelopes name their run themselves."""

    @property
    def run(self) -> Any:
        """Return None: there is no Flower run."""
        return None

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected now."""
        return self._board.nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Open the messages for their nodes; return their ids."""
        batch = list(messages)
        self._board.send([self._outgoing(message) for message in batch])
        self._sent.update({message.metadata.message_id: message for message in batch})
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; waits up to a second for the first, so that none lies idle."""
        found = self._board.collect(message_ids, _LONGEST_PULL)
        return [_reply(self._sent.pop(key), outcome) for key, outcome in found.items()]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return the replies that come within ``timeout`` seconds (None: a day)."""
        end = clock.monotonic() + (86_400.0 if timeout is None else timeout)
        waiting, replies = set(self.push_messages(messages)), list[Message]()
        while waiting and clock.monotonic() < end:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies

    def drop(self, message_ids: Iterable[str]) -> None:
        """Close messages; their sites are left at work, and replies to them are refused from now on."""
        for key in self._board.drop(message_ids):
            self._sent.pop(key, None)

    def close(self) -> None:
        """Withdraw everything that is still open."""
        self._board.withdraw(self._sent)
        self._sent.clear()

    def _outgoing(self, message: Message) -> Outgoing:
        envelope, digest = self._signed(unpack(message.content))
        about = message.metadata
        closes_at = clock.monotonic() + about.ttl
        return Outgoing(
            about.message_id,
            about.message_type,
            about.group_id,
            about.dst_node_id,
            digest,
            envelope,
            closes_at,
        )

    def _signed(self, envelope: bytes) -> tuple[bytes, str]:
        # A broadcast brings the same bytes for one node after the other: they are signed once.
        if envelope != self._last_signed[0]:
            signed = seal(open_envelope(envelope, max_bytes=_LARGEST), self._key)
            self._last_signed = (envelope, signed, hashlib.sha256(signed).hexdigest())
        return self._last_signed[1], self._last_signed[2]


def _reply(message: Message, outcome: bytes | FedftError) -> Message:
    if isinstance(outcome, FedftError):
        return Message(Error(code=_NEVER, reason=str(outcome)), reply_to=message)
    return Message(pack(outcome), reply_to=message)
