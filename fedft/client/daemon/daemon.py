"""The client daemon: a session with the server, and one worker process that holds the model."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from datetime import datetime
from pathlib import Path

from fedft import clock
from fedft.client.daemon.instruction_handler import InstructionHandler
from fedft.client.daemon.status import Status, StatusFile, lock_state
from fedft.client.daemon.worker_supervisor import WorkerProcess
from fedft.client.site.config import SiteConfig, load_site
from fedft.client.worker.reply_journal import ReplyJournal
from fedft.errors import Code, FedftError, Kind
from fedft.identity import keys
from fedft.transport.client import Connected, LinkClient, Work

_log = logging.getLogger("fedft.client")
_PATIENCE_WITH_A_TWIN = 20.0
_MOST_WAITING = 64


class Daemon:
    """One site's daemon, from ``run`` until a signal or a hopeless error.

    Args:
        path: of the site's configuration.

    Raises:
        FedftError: FEDFT-7050 mistakes in it, FEDFT-7052 a second daemon, FEDFT-7053 and 7054 keys and
            certificate, FEDFT-7055 disk.

    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.site: SiteConfig = load_site(self._path)
        state = self.site.path(self.site.state)
        self._state_lock = lock_state(state)
        require_valid_certificate(self.site)
        self._stop = threading.Event()
        self._failure: FedftError | None = None
        self._twin_since = 0.0
        self._queue: queue.Queue[Work] = queue.Queue(_MOST_WAITING)
        self._seen: set[str] = set()
        self._status = StatusFile(
            state, Status(self.site.name, self.site.server.address, os.getpid(), started=clock.timestamp())
        )
        self._link = LinkClient(self.site.tls, self.site.server.address, self._stop)
        self._journal = ReplyJournal(state / "journal.sqlite")
        self._worker = WorkerProcess(self._path)
        self._desk = InstructionHandler(
            self.site,
            self._link,
            self._worker,
            self._journal,
            self._status,
            self._stop,
            signing_key=keys.load_signing_key(self.site.path(self.site.identity.signing_key)),
            server_key=keys.parse_public_signing_key(
                keys.read_file(self.site.path(self.site.server.signing_key))
            ),
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            FedftError: FEDFT-7034 another daemon has the key; what denies this one: FEDFT-7033 a revoked key,
                FEDFT-6207 another role, FEDFT-7035 another version, FEDFT-7039 another name, FEDFT-8211 a
                ledger that lacks what the server has seen of it.

        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        self._worker.start()
        self._status.update(phase="connecting", worker_pid=self._worker.pid)
        link = threading.Thread(target=self._keep_link, name="link", daemon=True)
        link.start()
        try:
            while not self._stop.is_set():
                try:
                    work = self._queue.get(timeout=0.2)
                except queue.Empty:
                    continue
                self._desk.work(work)
                self._seen.discard(work.message_id)
        finally:
            self._stop.set()
            link.join(5.0)
            self._worker.end()
            self._link.close()
            self._journal.close()
            self._status.update(phase="stopped", connected=False, worker_pid=0)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End as soon as possible: work in progress is abandoned; the server asks again if it wants it."""
        self._stop.set()
        self._worker.kill()

    def _keep_link(self) -> None:
        try:
            self._link.keep_session(self._accepted, self._take, self._desk.withdraw, self._broken)
        except FedftError as error:
            self._failure = error
            self._status.error(error)
            self.stop()

    def _accepted(self, terms: Connected) -> None:
        if terms.client_name != self.site.name:
            raise FedftError(
                Code.CLIENT_NAME_MISMATCH,
                f"this key is enrolled as {terms.client_name}, site.toml says {self.site.name}",
                hint="set `name` in site.toml to the enrolled name",
            )
        if terms.witness is not None and self.site.ledger is not None:
            # Loads torch for the accounting, 300 MiB that a site without a ledger does not need.
            from fedft.privacy.site.ledger import Ledger

            Ledger(self.site.ledger).require_entry(terms.witness)
        self._twin_since = 0.0
        _log.info("connected to %s as %s", self._link.address, terms.client_name)
        now = clock.timestamp()
        self._status.update(connected=True, connected_since=now, phase="waiting", clock_skew=terms.clock_skew)

    def _take(self, work: Work) -> None:
        # After a reconnection the server repeats what it has no answer to, also what is being worked on.
        # Beyond what an honest server ever has open for one site, instructions are dropped.
        if work.message_id not in self._seen and not self._queue.full():
            self._seen.add(work.message_id)
            self._queue.put(work)

    def _broken(self, error: FedftError) -> None:
        _log.warning("not connected: %s", error)
        self._status.error(error, connected=False, phase="connecting")
        if error.code.kind is Kind.DENIED or (error.code is Code.KEY_IN_USE and self._twin_persists()):
            raise error

    def _twin_persists(self) -> bool:
        """Whether another session has had this key for longer than a dead one of ours would."""
        self._twin_since = self._twin_since or clock.monotonic()
        return clock.monotonic() - self._twin_since > _PATIENCE_WITH_A_TWIN


def require_valid_certificate(site: SiteConfig) -> datetime:
    """Check that the certificate belongs to the key and is in force; return when it expires.

    Raises:
        FedftError: FEDFT-7053 missing, or of another key; FEDFT-7054 expired or not yet valid.

    """
    certificate = keys.load_certificate(site.tls.certificate)
    if keys.load_tls_key(site.tls.key).public_key() != certificate.public_key():
        raise FedftError(
            Code.KEY_FILE_INVALID,
            f"{site.tls.certificate} is for another key than {site.tls.key}",
            hint="ask for the certificate of this folder's request.json",
        )
    return keys.require_in_force(
        site.tls.certificate, hint="ask the operator to enroll request.json again for a new one"
    )
