"""The thread that coordinates: it outlives what happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.config import RunConfig
from fedft.errors import FedftError
from fedft.identity.registry import Registry
from fedft.server.event_stream import EventStream
from fedft.server.metrics import ServerMetrics
from fedft.server.scheduler import Scheduler
from fedft.store import RunStore
from fedft.transport.broker import Broker
from tests.deployment import wait_until

COORDINATOR = "fedft.coordinator.coordinator.Coordinator"


class Disk:
    """A disk that can be full: the store cannot be written, nor the registry."""

    def __init__(self) -> None:
        self.full = True
        self.attempts = 0

    def write(self) -> None:
        self.attempts += 1
        if self.full:
            raise FedftError("FEDFT-6004", "cannot write to the run store: database or disk is full")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def scheduler(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    class CoordinatorOnTheDisk:
        def __init__(self, _grid: object, store: RunStore, run: Any, **_options: object) -> None:
            self._store, self._run = store, run

        def execute(self) -> None:
            disk.write()
            self._store.update_run(self._run.id, status="completed", final_digest="00")

    monkeypatch.setattr(COORDINATOR, CoordinatorOnTheDisk)
    store, registry = RunStore(tmp_path / "store"), Registry(tmp_path / "server.sqlite")
    metrics = ServerMetrics(lambda: 0)
    thread = Scheduler(
        store,
        registry,
        Broker(),
        Ed25519PrivateKey.generate(),
        EventStream(),
        metrics,
        retry_seconds=0.05,
    )
    yield thread
    thread.end()
    thread.join(10)


def _status(scheduler: Scheduler) -> str:
    return scheduler._store.runs()[-1].status


def test_a_disk_that_is_full_for_long_is_waited_for_and_the_run_goes_on_by_itself(
    scheduler: Scheduler, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunStore.add_event

    def add_event(store: RunStore, *arguments: str) -> None:
        disk.write()
        real(store, *arguments)

    scheduler.begin(RunConfig())
    monkeypatch.setattr(RunStore, "add_event", add_event)
    scheduler.start()
    wait_until(lambda: disk.attempts > 6, 20)
    assert scheduler.is_alive()
    assert not scheduler.is_well()
    assert "FEDFT-6004" in scheduler.trouble
    disk.full = False
    wait_until(lambda: _status(scheduler) == "completed", 20)
    wait_until(scheduler.is_well, 20)


def test_resume_tries_a_waiting_run_at_once(scheduler: Scheduler, disk: Disk) -> None:
    scheduler._retry_seconds = 3600.0
    run = scheduler.begin(RunConfig())
    scheduler.start()
    wait_until(lambda: disk.attempts and not scheduler.current, 20)
    disk.full = False
    scheduler.resume(run.id)
    wait_until(lambda: _status(scheduler) == "completed", 20)


def test_an_error_that_nobody_knows_leaves_the_run_failed_and_the_loop_alive(
    scheduler: Scheduler, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug() -> None:
        raise ZeroDivisionError("in the coordinator")

    monkeypatch.setattr(disk, "write", bug)
    run = scheduler.begin(RunConfig())
    scheduler.start()
    wait_until(lambda: scheduler._registry.wanted()[run.id] == "paused", 20)
    events = scheduler._store.events(run.id)
    assert "FEDFT-6213" in events[-1]["message"]
    monkeypatch.undo()
    disk.full = False
    scheduler._registry.want(run.id, "stopped")
    assert scheduler.is_alive()
