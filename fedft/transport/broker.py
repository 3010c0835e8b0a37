"""Where the coordinator's messages meet the clients' sessions."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from fedft import clock
from fedft.errors import Code, FedftError


@dataclass(frozen=True)
class Outgoing:
    """A sealed instruction for one node, open until ``closes_at`` (monotonic seconds).

    ``envelope`` is one object for all nodes of a broadcast; ``digest`` is its SHA-256 in hex.
    """

    message_id: str
    message_type: str
    group: str
    node: int
    digest: str
    envelope: bytes
    closes_at: float

    @property
    def remaining(self) -> float:
        """Seconds until it closes."""
        return self.closes_at - clock.monotonic()


@dataclass(frozen=True)
class Withdrawn:
    """A message that was closed before its time."""

    message_id: str


@dataclass(eq=False)
class ClientConnection:
    """One stream of one client. ``work`` holds what is to be sent; None ends the stream."""

    node: int
    name: str
    instance: bytes
    peer: str
    software: str = ""
    work: queue.SimpleQueue[Outgoing | Withdrawn | None] = field(default_factory=queue.SimpleQueue)
    since: float = field(default_factory=clock.timestamp)
    last_heard: float = field(default_factory=clock.monotonic)
    ended: FedftError | None = None

    def heard(self) -> None:
        """Note a signal of the client."""
        self.last_heard = clock.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the last signal."""
        return clock.monotonic() - self.last_heard

    def end(self, error: FedftError | None = None) -> None:
        """Close the stream, with a reason for the client if there is one."""
        self.ended = self.ended or error
        self.work.put(None)


class Broker:
    """Sessions by node, open messages, and replies not yet taken; safe to use from every thread.

    A message outlives a connection: a client that comes back is sent again what it has not answered.
    """

    def __init__(self, silence: float = 6.0, most: int = 10_000) -> None:
        self.silence, self.most = silence, most
        self._changed = threading.Condition()
        self._sessions: dict[int, ClientConnection] = {}
        self._open: dict[str, Outgoing] = {}
        self._replies: dict[str, bytes | FedftError] = {}
        self._barred: dict[int, FedftError] = {}

    # -- the coordinator's side ------------------------------------------------------------------------

    def nodes(self) -> list[int]:
        """Return the nodes that are connected."""
        with self._changed:
            return sorted(self._sessions)

    def sessions(self) -> list[ClientConnection]:
        """Return the open sessions."""
        with self._changed:
            return list(self._sessions.values())

    def send(self, messages: Iterable[Outgoing]) -> None:
        """Open messages; those for absent nodes wait until they come or the message closes.

        A message to a node that was expelled fails at once.
        """
        with self._changed:
            self._drop_closed()
            for message in messages:
                if message.node in self._barred:
                    self._replies[message.message_id] = self._barred[message.node]
                    continue
                self._open[message.message_id] = message
                if (connection := self._sessions.get(message.node)) is not None:
                    connection.work.put(message)

    def collect(self, message_ids: Iterable[str], wait: float) -> dict[str, bytes | FedftError]:
        """Take the replies that are there, after waiting up to ``wait`` seconds for the first.

        An error stands for a reply that will never come.
        """
        wanted = set(message_ids)
        with self._changed:
            self._changed.wait_for(lambda: not wanted.isdisjoint(self._replies), wait)
            return {key: self._replies.pop(key) for key in wanted & self._replies.keys()}

    def drop(self, message_ids: Iterable[str]) -> list[str]:
        """Close messages without a word to their nodes; replies to them are refused from now on."""
        with self._changed:
            ids = list(message_ids)
            for key in ids:
                self._replies.pop(key, None)
                self._open.pop(key, None)
            return ids

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Close messages; replies to them are refused from now on, and who is connected is told."""
        with self._changed:
            for key in message_ids:
                self._replies.pop(key, None)
                message = self._open.pop(key, None)
                if message is not None and (connection := self._sessions.get(message.node)) is not None:
                    connection.work.put(Withdrawn(key))

    # -- the clients' side -----------------------------------------------------------------------------

    def join(self, connection: ClientConnection) -> None:
        """Register a connection and queue what is open for its node.

        A new stream of the same process replaces the old one.

        Raises:
            FedftError: FEDFT-7034 when another process with the same key is connected and alive, FEDFT-7058
                when the server is full.

        """
        with self._changed:
            present = self._sessions.get(connection.node)
            if present is not None:
                if present.instance != connection.instance and present.silence < self.silence:
                    raise FedftError(
                        Code.KEY_IN_USE,
                        f"{connection.name} is connected already, from {present.peer}",
                        hint="one daemon for each key; if no other should run, treat the key as stolen",
                    )
                present.end()
            elif len(self._sessions) >= self.most:
                raise FedftError(
                    Code.TOO_MANY_CALLS,
                    f"{self.most} sites are connected already",
                    hint="the operator can raise limits.max_clients in server.toml",
                )
            self._barred.pop(connection.node, None)  # who comes this far is enrolled, perhaps again
            self._sessions[connection.node] = connection
            self._drop_closed()
            for message in self._open.values():
                if message.node == connection.node:
                    connection.work.put(message)

    def leave(self, connection: ClientConnection) -> None:
        """Take a connection off, unless a newer one has its place."""
        with self._changed:
            if self._sessions.get(connection.node) is connection:
                del self._sessions[connection.node]

    def expel(self, node: int, error: FedftError) -> None:
        """End a node's connection and fail everything that is open for it."""
        with self._changed:
            self._barred[node] = error
            for key in [key for key, message in self._open.items() if message.node == node]:
                del self._open[key]
                self._replies[key] = error
            connection = self._sessions.pop(node, None)
            self._changed.notify_all()
        if connection is not None:
            connection.end(error)

    def find(self, node: int, message_id: str) -> Outgoing:
        """Return an open message to this node; FEDFT-7038 when there is none."""
        with self._changed:
            self._drop_closed()
            message = self._open.get(message_id)
        if message is None or message.node != node:
            raise FedftError(
                Code.INSTRUCTION_CLOSED,
                f"message {message_id[:40]!r} is not open for this client",
                hint="its round is closed, or it was answered already",
            )
        return message

    def open_messages(self) -> set[tuple[int, str]]:
        """Return node and id of every open message."""
        with self._changed:
            self._drop_closed()
            return {(message.node, key) for key, message in self._open.items()}

    def envelope(self, node: int, digest: str) -> bytes:
        """Return the bytes of an open message to this node; FEDFT-7038 when none has this digest."""
        with self._changed:
            self._drop_closed()
            for message in self._open.values():
                if message.node == node and message.digest == digest:
                    return message.envelope
        raise FedftError(
            Code.INSTRUCTION_CLOSED, f"nothing with digest {digest[:16]}… is open for this client"
        )

    def answer(self, message: Outgoing, envelope: bytes) -> None:
        """Take the reply to an open message, once; FEDFT-7038 when it is closed by now."""
        with self._changed:
            self._drop_closed()
            if self._open.pop(message.message_id, None) is None:
                raise FedftError(
                    Code.INSTRUCTION_CLOSED, "the message was answered or closed in the meantime"
                )
            self._replies[message.message_id] = envelope
            self._changed.notify_all()

    def _drop_closed(self) -> None:
        now = clock.monotonic()
        for key in [key for key, message in self._open.items() if message.closes_at <= now]:
            del self._open[key]
