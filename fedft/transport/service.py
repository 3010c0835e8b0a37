"""The server's end of the link."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fedft import clock
from fedft.errors import Code, FedftError
from fedft.identity.keys import node_id
from fedft.identity.members import Member, MemberDirectory
from fedft.transport.broker import Broker, ClientConnection, Outgoing, Withdrawn
from fedft.transport.open_calls import CONNECT, TRANSFER, OpenCalls
from fedft.transport.rpc_errors import reporting
from fedft.transport.tls import peer_fingerprint
from fedft.transport.transfer import PartialFile, pieces
from fedft.transport.upload_store import UploadStore
from fedft.wire import Reply, Update
from fedft.wire.v1 import link_pb2 as pb
from fedft.wire.v1.link_pb2_grpc import LinkServicer

LINK_VERSION = 1


class LinkService(LinkServicer):  # type: ignore[misc]
    """Answers the clients' calls; every call asks anew whether the caller's key is enrolled.

    Args:
        board: where messages and sessions meet.
        members: who is enrolled.
        inbox: where replies are received.
        calls: what each key has open.
        first_message_seconds: a connection that says nothing for so long is ended.

    """

    def __init__(
        self,
        board: Broker,
        members: MemberDirectory,
        inbox: UploadStore,
        calls: OpenCalls,
        *,
        first_message_seconds: float = 10.0,
    ) -> None:
        self._board, self._members, self._inbox, self._calls = board, members, inbox, calls
        self._first_message_seconds = first_message_seconds

    def Connect(self, signals: Iterable[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        """Open a connection and send it work until either side ends it."""
        with reporting(context):
            member = self._expected(context)
            with self._open(member, CONNECT, context):
                yield from self._session(member, signals, context)

    def Download(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Send the rest of an envelope that is open for the caller."""
        with reporting(context):
            member = self._caller(context)
            with self._open(member, TRANSFER, context):
                envelope = self._board.envelope(node_id(member.fingerprint), request.digest.hex())
                for piece in pieces(envelope, request.offset):
                    yield pb.Chunk(data=piece)

    def Offer(self, header: Any, context: Any) -> Any:  # noqa: N802
        """Say how much of a reply is here."""
        with reporting(context):
            member = self._caller(context)
            file, _ = self._file(member, header)
            return pb.UploadPosition(offset=file.offset)

    def Upload(self, parts: Iterable[Any], context: Any) -> Any:  # noqa: N802
        """Take the rest of a reply, keep it, check it, hand it to the coordinator."""
        with reporting(context):
            member = self._caller(context)
            with self._open(member, TRANSFER, context):
                return self._take(member, iter(parts), context)

    # -- parts -----------------------------------------------------------------------------------------

    @contextmanager
    def _open(self, member: Member, kind: str, context: Any) -> Iterator[None]:
        try:
            with self._calls.one_of(member.fingerprint, kind, context.cancel):
                yield
        except FedftError as error:
            if error.code is Code.TOO_MANY_CALLS:
                self._members.incident(member.name, error.code, f"{error.message}; from {context.peer()}")
            raise

    def _session(self, member: Member, signals: Iterable[Any], context: Any) -> Iterator[Any]:
        connection = self._start(member, signals, context)
        try:
            yield self._accepted(member)
            yield from self._signals(connection)
        finally:
            self._board.leave(connection)
        if connection.ended is not None:
            raise connection.ended

    def _take(self, member: Member, parts: Iterator[Any], context: Any) -> Any:
        header = self._first(parts, pb.UploadPart(), context).header
        file, message = self._file(member, header)
        try:
            self._receive(file, header, parts)
            data, reply = self._inbox.read(file, member)
            self._keep_witness(member, message, reply)
        except FedftError as error:
            self._members.incident(member.name, error.code, error.message)
            raise
        except FileNotFoundError:
            raise FedftError(Code.INSTRUCTION_CLOSED, "the message was closed while its reply came") from None
        except OSError as error:
            raise self._disk(member, error) from error
        self._board.answer(message, data)
        self._inbox.taken(message.node, message.message_id)
        return pb.UploadReceipt(digest=header.digest)

    def _keep_witness(self, member: Member, message: Outgoing, reply: Reply) -> None:
        """Keep what an update shows of its site's ledger; a site that contradicts itself is put out."""
        if not (isinstance(reply, Update) and reply.privacy and reply.privacy.ledger):
            return
        try:
            self._members.witness(member.name, reply.privacy.ledger)
        except FedftError as error:
            self._inbox.forget(message.node, message.message_id)
            self._board.expel(message.node, error)
            raise

    def _first(self, iterator: Iterator[Any], default: Any, context: Any) -> Any:
        """Return the first message of a call; one that says nothing is cancelled."""
        timer = threading.Timer(self._first_message_seconds, context.cancel)
        timer.daemon = True
        timer.start()
        try:
            return next(iterator, default)
        finally:
            timer.cancel()

    def _caller(self, context: Any) -> Member:
        return self._members.require(peer_fingerprint(context), "client")

    def _expected(self, context: Any) -> Member:
        """Return the caller, and note who else knocks."""
        try:
            return self._caller(context)
        except FedftError as error:
            self._members.incident("", error.code, f"{error.message}; from {context.peer()}")
            raise

    def _start(self, member: Member, signals: Iterable[Any], context: Any) -> ClientConnection:
        iterator = iter(signals)
        start = self._first(iterator, pb.ClientSignal(), context).start
        if start.link_version != LINK_VERSION:
            raise FedftError(
                Code.LINK_VERSION_MISMATCH,
                f"the client speaks link version {start.link_version}, the server {LINK_VERSION}",
                hint="run the same major version of fedft on both ends",
            )
        node = node_id(member.fingerprint)
        connection = ClientConnection(
            node, member.name, start.instance[:16], context.peer(), start.software_version[:64]
        )
        try:
            self._board.join(connection)
        except FedftError as error:
            self._members.incident(member.name, error.code, f"{error.message}; refused {context.peer()}")
            raise
        context.add_callback(connection.end)
        threading.Thread(target=_listen, args=(iterator, connection), daemon=True).start()
        return connection

    def _accepted(self, member: Member) -> Any:
        seen = self._members.last_witness(member.name)
        accepted = pb.SessionAccepted(
            client_name=member.name,
            heartbeat_seconds=self._board.silence / 3,
            silence_seconds=self._board.silence,
            server_time=clock.timestamp(),
            max_upload_bytes=self._inbox.max_bytes,
            ledger_sequence=seen.sequence if seen else 0,
            ledger_digest=bytes.fromhex(seen.digest) if seen else b"",
        )
        return pb.ServerSignal(accepted=accepted)

    def _signals(self, connection: ClientConnection) -> Iterator[Any]:
        """Yield work as it comes and a heartbeat now and then; end when the client is silent."""
        sequence, pause = 0, self._board.silence / 3
        while connection.silence < self._board.silence:
            try:
                message = connection.work.get(timeout=pause)
            except queue.Empty:
                sequence += 1
                yield pb.ServerSignal(heartbeat=pb.Heartbeat(sequence=sequence))
                continue
            if message is None:
                return
            if isinstance(message, Withdrawn):
                yield pb.ServerSignal(withdrawal=pb.Withdrawal(message_id=message.message_id))
            elif message.remaining > 0:
                yield pb.ServerSignal(work=_work(message))

    def _file(self, member: Member, header: Any) -> tuple[PartialFile, Outgoing]:
        node = node_id(member.fingerprint)
        message = self._board.find(node, header.message_id)
        if len(header.digest) != 32:
            raise FedftError(Code.TRANSFER_DAMAGED, f"a digest of {len(header.digest)} bytes")
        self._inbox.sweep(self._board.open_messages())
        return self._inbox.file(node, message.message_id, header.digest.hex(), header.size), message

    def _receive(self, file: PartialFile, header: Any, parts: Iterator[Any]) -> None:
        if file.path.exists():
            return
        with file:
            if file.offset != header.offset:
                raise FedftError(
                    Code.TRANSFER_DAMAGED, f"an upload from byte {header.offset}, here are {file.offset}"
                )
            for part in parts:
                file.add(part.chunk.data)
            file.finish()

    def _disk(self, member: Member, error: OSError) -> FedftError:
        problem = f"the server cannot keep the reply of {member.name}: {error.strerror}"
        self._members.incident(member.name, Code.REPLY_NOT_STORED, problem)
        return FedftError(
            Code.REPLY_NOT_STORED, problem, hint="free space on the server; the client tries again"
        )


def _listen(signals: Iterator[Any], connection: ClientConnection) -> None:
    try:
        for _ in signals:
            connection.heard()
    except Exception:  # the stream broke: the connection is over, whatever the reason
        pass
    connection.end()


def _work(message: Outgoing) -> Any:
    return pb.Work(
        message_id=message.message_id,
        message_type=message.message_type,
        group=message.group,
        remaining_seconds=message.remaining,
        digest=bytes.fromhex(message.digest),
        size=len(message.envelope),
    )
