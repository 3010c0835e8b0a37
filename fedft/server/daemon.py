"""The server: link, admin service, metrics, and the thread that coordinates."""

from __future__ import annotations

import fcntl
import logging
import resource
import signal
import threading
from pathlib import Path
from typing import IO

import grpc

from fedft.errors import Code, FedftError
from fedft.identity import keys
from fedft.identity.authority import Authority
from fedft.identity.registry import Registry
from fedft.server.admin.audit_log import AuditLog
from fedft.server.admin.service import AdminService
from fedft.server.event_stream import EventStream
from fedft.server.metrics import ServerMetrics, serve_metrics
from fedft.server.scheduler import Scheduler
from fedft.server.settings import ServerSettings, load_settings
from fedft.store import RunStore
from fedft.transport.broker import Broker
from fedft.transport.open_calls import OpenCalls
from fedft.transport.service import LinkService
from fedft.transport.tls import start_server
from fedft.transport.upload_store import UploadStore
from fedft.wire.v1.admin_pb2_grpc import add_AdminServicer_to_server
from fedft.wire.v1.link_pb2_grpc import add_LinkServicer_to_server

_log = logging.getLogger("fedft.server")
_ADMIN_THREADS = 96
_SPARE_THREADS = 64
_GRACE = 2.0


class ServerDaemon:
    """A consortium's server in ``folder``, from ``run`` until a signal.

    Raises:
        FedftError: FEDFT-6201 and 6204 settings, FEDFT-6209 a second server, FEDFT-6203 a port is taken.

    """

    def __init__(self, folder: Path) -> None:
        settings: ServerSettings = load_settings(folder)
        self._lock = _lock(settings.folder)
        self._stop = threading.Event()
        authority = Authority(settings.folder / "ca")
        if authority.renew_server(settings.tls.certificate, settings.tls.key, settings.name, settings.hosts):
            _log.info("issued a new server certificate")
        settings.write_bundle()
        self._registry = Registry(settings.folder / "server.sqlite")
        store = RunStore(settings.store_folder)
        limits, calls = settings.limits, OpenCalls()
        board, feed = Broker(limits.silence_seconds, limits.max_clients), EventStream()
        metrics = ServerMetrics(lambda: len(board.nodes()))
        self._runner = Scheduler(
            store,
            self._registry,
            board,
            keys.load_signing_key(settings.signing_key_path),
            feed,
            metrics,
            retry_seconds=settings.limits.retry_seconds,
        )
        inbox = UploadStore(settings.folder / "inbox", limits.max_upload_bytes)
        link = LinkService(board, self._registry, inbox, calls)
        audit = AuditLog(settings.folder / "audit.sqlite")
        admin = AdminService(
            settings, self._registry, authority, store, board, self._runner, feed, audit, calls, inbox
        )
        descriptors = raise_descriptor_limit()
        self._servers = [
            serve_link(settings, link)[0],
            start_server(
                settings.tls,
                settings.admin,
                lambda s: add_AdminServicer_to_server(admin, s),
                threads=_ADMIN_THREADS,
            )[0],
        ]
        self._http = (
            serve_metrics(settings.metrics, metrics, self._runner.is_well) if settings.metrics else None
        )
        _log.info("link on %s, admin on %s, metrics on %s", settings.link, settings.admin, settings.metrics)
        _log.info("up to %d sites and %d file descriptors", limits.max_clients, descriptors)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; the run that goes on then is continued at the next start.

        Raises:
            FedftError: FEDFT-6214 when the coordinating thread has ended by itself, so that the process ends
                too and whoever watches over it starts it again.

        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        self._runner.start()
        while not self._stop.wait(0.5) and self._runner.is_alive():
            pass
        lost = not self._stop.is_set()
        self._runner.end()
        ended = [server.stop(_GRACE) for server in self._servers]
        self._runner.join(10 * _GRACE)
        for each in ended:
            each.wait(2 * _GRACE)
        if self._http is not None:
            self._http.shutdown()
        if lost:
            raise FedftError(
                Code.COORDINATOR_ENDED, "the coordinating thread has ended", hint="see the log above"
            )


def serve_link(settings: ServerSettings, link: LinkService) -> tuple[grpc.Server, int]:
    """Serve the link with a thread for each site that may be connected; return the server and its port."""
    threads = 2 * settings.limits.max_clients + _SPARE_THREADS
    return start_server(
        settings.tls, settings.link, lambda server: add_LinkServicer_to_server(link, server), threads=threads
    )


def _lock(folder: Path) -> IO[str]:
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FedftError(Code.SERVER_FOLDER_LOCKED, f"another server runs in {folder}") from None
    return file


def raise_descriptor_limit() -> int:
    """Allow this process as many open files as the system lets it have; return the limit.

    The usual soft limit of 1,024 is one idle connection for each, and nothing else could connect then.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
