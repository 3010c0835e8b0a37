"""What a daemon does with an instruction, with a worker and a link that tell what they are asked."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.client.daemon.instruction_handler import InstructionHandler
from fedft.client.daemon.status import Status, StatusFile
from fedft.client.site.config import SiteConfig
from fedft.client.worker.reply_journal import ReplyJournal
from fedft.errors import FedftError
from fedft.transport.client import Work
from fedft.wire import (
    Instruction,
    Refusal,
    Reply,
    Update,
    decode_reply,
    encode_instruction,
    encode_reply,
    open_envelope,
    seal,
)
from tests.client.worker.test_reply_journal import instruction

SERVER_KEY, SITE_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


class Link:
    """Delivers one envelope and keeps what is sent."""

    def __init__(self) -> None:
        self.envelope, self.broken, self.downloads = b"", False, 0
        self.sent: list[bytes] = []

    def download(self, _digest: str, _size: int, path: Path, _seconds: float) -> Path:
        self.downloads += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(self.envelope)
        return path

    def upload(self, _message_id: str, envelope: bytes, _seconds: float) -> None:
        if self.broken:
            raise FedftError("FEDFT-7030", "cut")
        self.sent.append(envelope)


class Worker:
    """Answers with an update, or fails as it is told."""

    pid, starts, warm = 1, 1, True

    def __init__(self, reply: Reply) -> None:
        self.reply, self.asked = reply, 0
        self.error: Exception | None = None
        self.during: Callable[[str], None] = lambda _message_id: None
        self.withdraws = ""

    def start(self) -> None:
        self.starts += not self.pid
        self.pid = 1

    def end(self) -> None:
        self.pid = 0

    kill = end

    def ask(self, request: dict[str, Any], _seconds: float) -> dict[str, Any]:
        self.asked += 1
        if self.withdraws:
            self.during(self.withdraws)
            if not self.pid:
                raise FedftError("FEDFT-7040", "killed")
        if self.error is not None:
            raise self.error
        Path(request["reply"]).write_bytes(seal(encode_reply(self.reply)))
        return {"done": request["message_id"]}


class Bench:
    """A desk with everything around it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.link = folder, Link()
        asked = instruction()
        self.worker = Worker(Update(asked.round, asked.model, "a", 1, 5, asked.global_state))
        self.site = SiteConfig.model_validate(
            {"name": "a", "server": {"address": "h:1"}, "data": {"train": "x"}, "folder": folder}
        )
        self.status = Status("a", "h:1")
        self.journal = ReplyJournal(folder / "state" / "journal")
        self.withdrawn: str = ""

    def work(
        self, asked: Instruction | None = None, *, key: Ed25519PrivateKey | None = SERVER_KEY
    ) -> Reply | None:
        """Work on an instruction; return the reply that was sent, None if none was."""
        self.link.envelope = seal(encode_instruction(asked or instruction()), key)
        digest = hashlib.sha256(self.link.envelope).hexdigest()
        before = len(self.link.sent)
        desk = InstructionHandler(
            self.site,
            self.link,  # type: ignore[arg-type]
            self.worker,  # type: ignore[arg-type]
            self.journal,
            StatusFile(self.folder, self.status),
            threading.Event(),
            signing_key=SITE_KEY,
            server_key=SERVER_KEY.public_key(),
        )
        if self.withdrawn:
            desk.withdraw(self.withdrawn)
        self.worker.during = desk.withdraw
        desk.work(Work("m", "train", "1", digest, len(self.link.envelope), time.monotonic() + 60))
        sent = self.link.sent[before:]
        if not sent:
            return None
        return decode_reply(open_envelope(sent[0], max_bytes=10**6, trusted_key=SITE_KEY.public_key()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_instruction_is_worked_on_once_however_often_it_comes(bench: Bench) -> None:
    replies = [bench.work(), bench.work(), bench.work(replace(instruction(), deadline_seconds=7.0))]
    assert replies == [bench.worker.reply] * 3
    assert bench.worker.asked == 1
    assert len(set(bench.link.sent)) == 1
    assert (bench.status.answered, bench.status.repeated) == (3, 2)


def test_a_reply_that_did_not_get_through_is_not_made_again(bench: Bench) -> None:
    bench.link.broken = True
    assert bench.work() is None
    bench.link.broken = False
    assert bench.work() == bench.worker.reply
    assert bench.worker.asked == 1


def test_a_worker_that_dies_declines_the_round_and_no_later_one(bench: Bench) -> None:
    bench.worker.error = FedftError("FEDFT-7040", "the worker process died: SIGKILL")
    declined = bench.work()
    assert isinstance(declined, Refusal)
    assert (declined.code, declined.round.round) == ("FEDFT-7040", 1)
    bench.worker.error = None
    assert bench.work() == bench.worker.reply
    assert bench.status.declined == 1


@pytest.mark.parametrize("key", [None, SITE_KEY], ids=["unsigned", "another key"])
def test_what_the_server_has_not_signed_is_not_worked_on(bench: Bench, key: Ed25519PrivateKey | None) -> None:
    declined = bench.work(key=key)
    assert isinstance(declined, Refusal)
    assert (declined.round.run_id, declined.code[:-1]) == ("unread", "FEDFT-400")
    assert bench.worker.asked == 0
    assert "FEDFT-400" in bench.status.last_error


def test_a_full_disk_declines(bench: Bench) -> None:
    limits = bench.site.limits.model_copy(update={"min_free_bytes": 2**62})
    bench.site = bench.site.model_copy(update={"limits": limits})
    declined = bench.work()
    assert isinstance(declined, Refusal)
    assert declined.code == "FEDFT-7055"
    assert bench.worker.asked == 0


def test_what_cannot_be_journalled_does_not_leave(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise FedftError("FEDFT-7055", "cannot use the journal: database or disk is full")

    monkeypatch.setattr(bench.journal, "keep", full)
    declined = bench.work()
    assert isinstance(declined, Refusal)
    assert declined.code == "FEDFT-7055"


def test_an_instruction_larger_than_the_site_takes_is_not_fetched(bench: Bench) -> None:
    limits = bench.site.limits.model_copy(update={"max_download_bytes": 10})
    bench.site = bench.site.model_copy(update={"limits": limits})
    declined = bench.work()
    assert isinstance(declined, Refusal)
    assert declined.code == "FEDFT-7036"
    assert not bench.link.downloads


def test_an_instruction_that_is_there_already_outlives_newer_cut_downloads(bench: Bench) -> None:
    bench.work()
    for name in ("a.part", "b.part"):
        (bench.site.path(bench.site.cache) / "instructions" / name).write_bytes(b"cut")
    assert bench.work() == bench.worker.reply


def test_a_failure_of_a_kind_unknown_declines_and_leaves_the_daemon_up(bench: Bench) -> None:
    bench.worker.error = ValueError("surprise")
    declined = bench.work()
    assert isinstance(declined, Refusal)
    assert (declined.code, declined.message) == ("FEDFT-7043", "ValueError: surprise")
    bench.worker.error = None
    assert bench.work() == bench.worker.reply


@pytest.mark.parametrize("code", ["FEDFT-7030", "FEDFT-7038"])
def test_nothing_is_sent_for_an_instruction_that_cannot_be_had_any_more(
    bench: Bench, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise FedftError(code, "closed")

    monkeypatch.setattr(bench.link, "download", closed)
    assert bench.work() is None
    assert code in bench.status.last_error


def test_a_worker_without_memory_declines_and_is_replaced(bench: Bench) -> None:
    update, bench.worker.reply = bench.worker.reply, Refusal(instruction().round, "FEDFT-7011", "no memory")
    declined = bench.work()
    assert isinstance(declined, Refusal)
    assert declined.code == "FEDFT-7011"
    assert (bench.worker.starts, bench.status.declined) == (2, 1)
    bench.worker.reply = update
    assert bench.work() == update
    assert bench.worker.asked == 2


def test_lack_of_memory_is_told_from_other_failures() -> None:
    import torch

    from fedft.client.worker.out_of_memory import is_out_of_memory

    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 EiB"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_an_instruction_that_was_withdrawn_is_not_worked_on(bench: Bench) -> None:
    bench.withdrawn = "m"
    assert bench.work() is None
    assert bench.worker.asked == 0


def test_a_worker_busy_with_a_withdrawn_instruction_is_ended_and_with_another_is_not(bench: Bench) -> None:
    bench.worker.withdraws = "another"
    assert bench.work() == bench.worker.reply
    bench.worker.withdraws = "m"
    declined = bench.work(instruction(2))
    assert isinstance(declined, Refusal)
    assert (bench.worker.starts, bench.worker.pid) == (2, 1)


def test_a_worker_that_still_loads_is_left_to_finish_what_was_withdrawn(bench: Bench) -> None:
    bench.worker.warm, bench.worker.withdraws = False, "m"
    assert bench.work() == bench.worker.reply
    assert bench.worker.starts == 1


def _with_ledger(bench: Bench, quantum: float) -> None:
    bench.site = bench.site.model_copy(
        update={
            "privacy": bench.site.privacy.model_copy(update={"ledger": "ledger.sqlite"}),
            "limits": bench.site.limits.model_copy(update={"answer_quantum_seconds": quantum}),
        }
    )


@pytest.mark.parametrize("seconds", [0.0, 0.15, 0.35])
def test_a_site_with_a_ledger_answers_after_whole_quanta(
    bench: Bench, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = bench.worker.ask

    def slow(request: dict[str, Any], allowed: float) -> dict[str, Any]:
        time.sleep(seconds)
        return ask(request, allowed)

    monkeypatch.setattr(bench.worker, "ask", slow)
    sent: list[float] = []
    monkeypatch.setattr(bench.link, "upload", lambda *_: sent.append(time.monotonic()))
    _with_ledger(bench, 0.5)
    begun = time.monotonic()
    bench.work()

    quanta = (sent[0] - begun) / 0.5
    assert quanta >= 1
    assert 0 <= quanta % 1 < 0.5  # the rest is what this test adds, and must not be the work's length


@pytest.mark.parametrize("code", ["FEDFT-7040", "FEDFT-7041", "FEDFT-7043"])
def test_a_site_with_a_ledger_does_not_tell_how_its_worker_ended(bench: Bench, code: str) -> None:
    bench.worker.error = FedftError(code, "SIGKILL after 3 s")
    plain = bench.work()
    _with_ledger(bench, 0.0)
    told = bench.work()

    assert isinstance(plain, Refusal)
    assert plain.code == code
    assert isinstance(told, Refusal)
    assert (told.code, told.message) == ("FEDFT-8325", "the private round is not answered")


def test_a_round_that_is_withheld_leaves_no_worker_with_what_it_held(bench: Bench) -> None:
    starts = bench.worker.starts
    bench.worker.reply = Refusal(instruction().round, "FEDFT-8325", "the private round is not answered", "a")
    bench.work()

    assert bench.worker.starts == starts + 1
