"""The site's end of the link: a connection that is kept up, and transfers that survive cuts."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fedft
from fedft import clock
from fedft.errors import Code, FedftError, Kind
from fedft.statements import LedgerWitness
from fedft.transport.retry import Backoff, attempts
from fedft.transport.rpc_errors import raised
from fedft.transport.service import LINK_VERSION
from fedft.transport.tls import TlsFiles, open_channel
from fedft.transport.transfer import PartialFile, pieces, receive
from fedft.wire.decode import MAX_SECONDS, witness_of
from fedft.wire.v1 import link_pb2 as pb
from fedft.wire.v1.link_pb2_grpc import LinkStub

_CALL_SECONDS = 20.0
_STALL_SECONDS = 60.0
_MOST_NAME = 256


@dataclass(frozen=True)
class Work:
    """An instruction to fetch and answer before ``closes_at`` (monotonic seconds)."""

    message_id: str
    message_type: str
    group: str
    digest: str
    size: int
    closes_at: float

    @property
    def remaining(self) -> float:
        """Seconds until it is of no use any more."""
        return self.closes_at - clock.monotonic()


@dataclass(frozen=True)
class Connected:
    """What the server says when a connection begins.

    ``clock_skew`` is its clock minus ours, in seconds; ``witness`` the last entry of this site's ledger that
    it has seen.
    """

    client_name: str
    heartbeat: float
    silence: float
    clock_skew: float
    max_upload: int
    witness: LedgerWitness | None = None


class LinkClient:
    """Joins a site to its server.

    Args:
        files: certificate and key of the site, and the authority that the server must be certified by.
        address: host and port.
        stop: set to end everything.

    """

    def __init__(self, files: TlsFiles, address: str, stop: threading.Event) -> None:
        self.address = address
        self._files, self._stop = files, stop
        self._instance = os.urandom(16)
        self._channel = open_channel(files, address)
        self._stub = LinkStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    # -- the connection -----------------------------------------------------------------------------------

    def connection(
        self,
        on_accepted: Callable[[Connected], None],
        on_work: Callable[[Work], None],
        on_withdrawn: Callable[[str], None] = lambda _message_id: None,
    ) -> None:
        """Hold one connection until it breaks or ``stop`` is set.

        Raises:
            FedftError: why it ended, unless it was stopped.

        """
        signals: queue.SimpleQueue[Any] = queue.SimpleQueue()
        start = pb.SessionStart(
            link_version=LINK_VERSION, software_version=fedft.__version__, instance=self._instance
        )
        signals.put(pb.ClientSignal(start=start))
        call = self._stub.Connect(iter(signals.get, None))
        pulse = _Pulse(signals, call, self._stop)
        pulse.start()
        try:
            with raised(self.address):
                for signal in call:
                    pulse.heard()
                    self._take(signal, pulse, on_accepted, on_work, on_withdrawn)
            if not self._stop.is_set():
                raise FedftError(Code.SERVER_UNREACHABLE, f"{self.address} has ended the session")
        except FedftError:
            if not self._stop.is_set():
                raise
        finally:
            pulse.finish()
            call.cancel()

    def keep_session(
        self,
        on_accepted: Callable[[Connected], None],
        on_work: Callable[[Work], None],
        on_withdrawn: Callable[[str], None],
        on_broken: Callable[[FedftError], None],
    ) -> None:
        """Hold sessions one after the other until ``stop`` is set, pausing between them.

        Raises:
            FedftError: when ``on_broken`` raises it.

        """
        backoff = Backoff()

        def accepted(terms: Connected) -> None:
            backoff.reset()
            on_accepted(terms)

        while not self._stop.is_set():
            try:
                self.connection(accepted, on_work, on_withdrawn)
            except FedftError as error:
                on_broken(error)
                self._stop.wait(backoff.pause())

    def _take(
        self,
        signal: Any,
        pulse: _Pulse,
        on_accepted: Callable[[Connected], None],
        on_work: Callable[[Work], None],
        on_withdrawn: Callable[[str], None],
    ) -> None:
        kind = signal.WhichOneof("kind")
        if kind == "accepted":
            accepted = signal.accepted
            pulse.every = _within(accepted.heartbeat_seconds, 0.2, 60.0)
            pulse.patience = _within(accepted.silence_seconds, 1.0, 600.0)
            skew = _within(accepted.server_time, 0.0, 2.0**40) - clock.timestamp()
            on_accepted(
                Connected(
                    accepted.client_name,
                    accepted.heartbeat_seconds,
                    accepted.silence_seconds,
                    skew,
                    accepted.max_upload_bytes,
                    witness_of(accepted.ledger_sequence, accepted.ledger_digest),
                )
            )
        elif kind == "work":
            on_work(_work(signal.work))
        elif kind == "withdrawal":
            on_withdrawn(signal.withdrawal.message_id)

    # -- transfers -------------------------------------------------------------------------------------

    def download(self, digest: str, size: int, path: Path, seconds: float) -> Path:
        """Bring the envelope with this digest to ``path``; a cut download goes on where it ended.

        Raises:
            FedftError: FEDFT-7038 closed on the server, FEDFT-7037 damaged again and again, FEDFT-7030 not
                reached within ``seconds``, FEDFT-7055 when the disk refuses.

        """
        file = PartialFile(path, digest, size)

        def once() -> None:
            if not path.exists():
                request = pb.DownloadRequest(digest=bytes.fromhex(digest), offset=file.offset)
                call = self._stub.Download(request, timeout=max(seconds, _CALL_SECONDS))
                receive(file, _watched(call, self.address))

        self._insist(once, seconds)
        return path

    def upload(self, message_id: str, envelope: bytes, seconds: float) -> None:
        """Send a reply; when this returns, the server has it on disk and has accepted its form.

        Raises:
            FedftError: FEDFT-7038 the round is closed; FEDFT-7036, 7039, 4001 to 4009 refused; FEDFT-7030
                not reached within ``seconds``.

        """
        digest = hashlib.sha256(envelope).digest()

        def once() -> None:
            header = pb.UploadHeader(message_id=message_id, digest=digest, size=len(envelope))
            with raised(self.address):
                header.offset = self._stub.Offer(header, timeout=_CALL_SECONDS).offset
                self._stub.Upload(_parts(header, envelope), timeout=max(seconds, _CALL_SECONDS))

        self._insist(once, seconds)

    def _insist(self, once: Callable[[], None], seconds: float) -> None:
        last = FedftError(Code.SERVER_UNREACHABLE, f"{self.address}: stopped")
        for _ in attempts(self._stop, seconds):
            try:
                once()
                return
            except FedftError as error:
                if error.code.kind not in (Kind.RETRY, Kind.UNAVAILABLE):
                    raise
                last = error
            except OSError as error:
                raise FedftError(
                    Code.SITE_DISK_UNWRITABLE,
                    f"cannot write to this site's disk: {error.strerror}",
                    hint="free space",
                ) from error
        raise last


class _Pulse(threading.Thread):
    """Sends heartbeats and cancels the call when the server is silent for too long."""

    def __init__(self, signals: queue.SimpleQueue[Any], call: Any, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.every, self.patience = 1.0, _CALL_SECONDS
        self._signals, self._call, self._stop_all = signals, call, stop
        self._done = threading.Event()
        self._last = clock.monotonic()

    def heard(self) -> None:
        """Note a signal of the server."""
        self._last = clock.monotonic()

    def finish(self) -> None:
        """End the heartbeats."""
        self._done.set()
        self._signals.put(None)

    def run(self) -> None:
        """Beat until finished."""
        sequence, next_beat = 0, 0.0
        while not self._done.wait(0.1):
            now = clock.monotonic()
            if self._stop_all.is_set() or now - self._last > self.patience:
                self._call.cancel()
                return
            if now >= next_beat:
                sequence, next_beat = sequence + 1, now + self.every
                self._signals.put(pb.ClientSignal(heartbeat=pb.Heartbeat(sequence=sequence)))


def _watched(call: Any, address: str) -> Iterator[bytes]:
    """Yield the chunks of a download; a call that stalls is cancelled, to be tried again."""
    last = clock.monotonic()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            if clock.monotonic() - last > _STALL_SECONDS:
                call.cancel()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        with raised(address):
            for chunk in call:
                last = clock.monotonic()
                yield chunk.data
    finally:
        done.set()
        call.cancel()


def _parts(header: Any, envelope: bytes) -> Iterator[Any]:
    yield pb.UploadPart(header=header)
    for piece in pieces(envelope, header.offset):
        yield pb.UploadPart(chunk=pb.Chunk(data=piece))


def _work(work: Any) -> Work:
    named = max(len(work.message_id), len(work.message_type), len(work.group)) <= _MOST_NAME
    if not named or len(work.digest) != 32:
        raise FedftError(Code.FIELD_OUT_OF_BOUNDS, "the server names an instruction beyond all bounds")
    return Work(
        work.message_id,
        work.message_type,
        work.group,
        work.digest.hex(),
        work.size,
        clock.monotonic() + _within(work.remaining_seconds, 0.0, MAX_SECONDS),
    )


def _within(value: float, least: float, most: float) -> float:
    """Return a number of the server's within bounds; ``least`` for what is none."""
    return min(max(value, least), most) if value == value else least
