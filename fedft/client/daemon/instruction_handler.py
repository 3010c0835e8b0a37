"""One instruction from its download to the acknowledged reply."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedft import clock
from fedft.client.daemon.status import StatusFile
from fedft.client.daemon.worker_supervisor import WorkerProcess
from fedft.client.site.config import SiteConfig
from fedft.client.worker.reply_journal import ReplyJournal
from fedft.errors import Code, FedftError, Kind
from fedft.privacy.site.disclosure import withheld
from fedft.transport.client import LinkClient, Work
from fedft.transport.transfer import keep_newest
from fedft.wire import (
    Evaluation,
    Instruction,
    Refusal,
    RoundRef,
    SecaggAnswer,
    Update,
    decode_instruction,
    decode_reply,
    encode_reply,
    open_envelope,
    reply_kind,
    seal,
)

_OF_THE_WORK = (Code.WORKER_DIED, Code.WORKER_TIMED_OUT, Code.DAEMON_FAILED)
"""How much memory and time a round takes may depend on the records."""
_log = logging.getLogger("fedft.client")
_LARGEST = 2**31 - 1
_KEPT = 2
_MOST_WITHDRAWN = 1024
_UNREAD = RoundRef("unread", 0)  # what a refusal names when the instruction could not be opened


class InstructionHandler:
    """Works instructions off, one after the other.

    An instruction that the journal has a reply to is answered from there. A new reply is written to the
    journal before it leaves. Whatever fails here is declined with its code, so that the round need not
    wait for the deadline.

    At a site with a privacy ledger a reply leaves after a whole number of ``limits.answer_quantum_seconds``
    since its work began, and a worker that ends is not told apart from other failures: how long a round takes
    and how much memory it needs depend on the records.
    """

    def __init__(
        self,
        site: SiteConfig,
        link: LinkClient,
        worker: WorkerProcess,
        journal: ReplyJournal,
        status: StatusFile,
        stop: threading.Event,
        *,
        signing_key: Ed25519PrivateKey,
        server_key: Ed25519PublicKey,
    ) -> None:
        self._site, self._link, self._worker = site, link, worker
        self._journal, self._status, self._stop = journal, status, stop
        self._quantum = site.limits.answer_quantum_seconds if site.privacy.ledger else 0.0
        self._key, self._server_key = signing_key, server_key
        self._cache = site.path(site.cache)
        self._lock = threading.Lock()
        self._at_work = ""
        self._withdrawn: dict[str, None] = {}  # in the order of time, the last so many

    def withdraw(self, message_id: str) -> None:
        """Drop an instruction that nobody waits for, from any thread; a worker busy with it is ended.

        But not one that is still loading for its first answer: if that takes longer than the server waits,
        it would be ended again and again and never be ready.
        """
        with self._lock:
            self._withdrawn[message_id] = None
            while len(self._withdrawn) > _MOST_WITHDRAWN:
                self._withdrawn.pop(next(iter(self._withdrawn)))
            if self._at_work == message_id and self._worker.warm:
                self._worker.kill()

    def work(self, work: Work) -> None:
        """Answer one instruction; errors go to the log and the status."""
        if work.remaining <= 0 or work.message_id in self._withdrawn:
            self._withdrawn.pop(work.message_id, None)
            return
        begun = clock.monotonic()
        try:
            reply = self._answer(work)
            self._wait(begun)
            self._link.upload(work.message_id, reply, max(work.remaining, 1.0))
            self._status.add("answered")
        except FedftError as error:
            _log.warning("instruction %s of group %s: %s", work.message_type, work.group, error)
            self._status.error(error)
        finally:
            self._status.update(
                phase="waiting", worker_pid=self._worker.pid, worker_starts=self._worker.starts
            )

    def _wait(self, begun: float) -> None:
        if self._quantum:
            self._stop.wait(self._quantum - (clock.monotonic() - begun) % self._quantum)

    def _answer(self, work: Work) -> bytes:
        """Return the signed reply, a refusal if need be; raises when nobody waits for one."""
        about = _UNREAD
        try:
            path = self._fetch(work)
            payload = open_envelope(path.read_bytes(), max_bytes=_LARGEST, trusted_key=self._server_key)
            instruction = decode_instruction(payload)
            about = instruction.round
            self._status.update(phase=str(instruction.kind), run=about.run_id, round=about.round)
            return self._reply(work, instruction, path)
        except FedftError as error:
            if error.code.kind is Kind.UNAVAILABLE or error.code is Code.INSTRUCTION_CLOSED:
                raise
            return self._refusal(error, about)
        except Exception as error:  # the daemon outlives whatever one instruction does to it
            _log.exception("instruction %s of group %s", work.message_type, work.group)
            return self._refusal(FedftError(Code.DAEMON_FAILED, f"{type(error).__name__}: {error}"), about)

    def _fetch(self, work: Work) -> Path:
        limits = self._site.limits
        if work.size > limits.max_download_bytes:
            raise FedftError(
                Code.TRANSFER_TOO_LARGE,
                f"an instruction of {work.size} bytes, this site takes {limits.max_download_bytes}",
                hint="raise limits.max_download_bytes in site.toml",
            )
        folder = self._cache / "instructions"
        path = self._link.download(work.digest, work.size, folder / work.digest, work.remaining)
        path.touch()  # one that came before counts as new too: it is wanted now
        keep_newest(folder, _KEPT)
        return path

    def _reply(self, work: Work, instruction: Instruction, path: Path) -> bytes:
        journalled = self._journal.find(instruction)
        if journalled is not None:
            _log.info("round %d: answered from the journal", instruction.round.round)
            self._status.add("repeated")
            return journalled
        self._require_disk()
        payload = self._ask(work, path)
        signed, kind = seal(payload, self._key), reply_kind(payload)
        if kind in (Update, Evaluation, SecaggAnswer):
            self._journal.keep(instruction, signed)
        elif kind is Refusal:
            refusal = decode_reply(payload)
            assert isinstance(refusal, Refusal)
            self._declined(FedftError(refusal.code, refusal.message), instruction.round)
        return signed

    def _refusal(self, error: FedftError, about: RoundRef) -> bytes:
        self._declined(error, about)
        told = withheld() if self._site.privacy.ledger and error.code in _OF_THE_WORK else error
        words = f"{told.message} {told.hint}".strip()[:2000]
        refusal = Refusal(about, told.code, words, self._site.name)
        return seal(encode_reply(refusal), self._key)

    def _declined(self, error: FedftError, about: RoundRef) -> None:
        _log.warning("round %d declined: %s", about.round, error)
        self._status.error(error)
        self._status.add("declined")
        if error.code in (Code.OUT_OF_MEMORY, Code.ROUND_WITHHELD):
            self._worker.end()  # what it may still hold of the memory comes back with its end alone
            self._worker.start()

    def _ask(self, work: Work, path: Path) -> bytes:
        reply = self._cache / "reply"
        request: dict[str, Any] = {
            "message_id": work.message_id,
            "message_type": work.message_type,
            "group": work.group,
            "ttl": max(work.remaining, 1.0),
            "instruction": str(path),
            "reply": str(reply),
        }
        start = clock.monotonic()
        with self._lock:
            self._at_work = work.message_id
        try:
            answer = self._worker.ask(request, max(work.remaining, 0.0) + self._site.limits.grace_seconds)
        finally:
            with self._lock:
                self._at_work = ""
                self._withdrawn.pop(work.message_id, None)
            self._worker.start()  # a dead one is replaced now, not when the next round waits for it
        if "failed" in answer:
            raise FedftError(Code.SITE_DISK_UNWRITABLE, f"the worker cannot use the disk: {answer['failed']}")
        _log.info("group %s: %s in %.2f s", work.group, work.message_type, clock.monotonic() - start)
        return open_envelope(reply.read_bytes(), max_bytes=_LARGEST)

    def _require_disk(self) -> None:
        free = shutil.disk_usage(self._site.path(self._site.state)).free
        if free < self._site.limits.min_free_bytes:
            raise FedftError(
                Code.SITE_DISK_UNWRITABLE,
                f"{free >> 20} MiB are free on this site's disk, the minimum is "
                f"{self._site.limits.min_free_bytes >> 20}",
                hint="free space, or lower limits.min_free_bytes",
            )
