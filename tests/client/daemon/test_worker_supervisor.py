"""The daemon's end of a worker process that gives no answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedft.client.daemon.worker_supervisor import WorkerProcess
from fedft.errors import FedftError

REQUEST = {
    "message_id": "1",
    "message_type": "train",
    "group": "1",
    "ttl": 60.0,
    "instruction": "",
    "reply": "",
}


def test_a_worker_with_a_broken_library_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flwr.py").write_text("raise ImportError('libssl.so is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = WorkerProcess(tmp_path / "site.toml")

    with pytest.raises(FedftError, match=r"FEDFT-7042 .*exit status 1"):
        worker.ask(REQUEST, 60.0)

    assert worker.pid == 0


def test_a_worker_that_is_silent_past_the_deadline_is_ended_and_the_next_request_has_a_new_one(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it waits for a writer that never comes
    worker = WorkerProcess(tmp_path / "site.toml")
    try:
        for starts in (1, 2):
            with pytest.raises(FedftError, match="FEDFT-7041"):
                worker.ask({**REQUEST, "instruction": str(tmp_path / "pipe")}, 0.2)
            assert (worker.pid, worker.starts) == (0, starts)
    finally:
        worker.end()
