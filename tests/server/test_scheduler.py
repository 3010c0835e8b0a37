"""The thread that carries runs out, when the coordinator fails in a way that nobody foresaw."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.coordinator.coordinator import Coordinator
from fedft.errors import FedftError
from fedft.identity.registry import Registry
from fedft.server.event_stream import EventStream
from fedft.server.metrics import ServerMetrics
from fedft.server.scheduler import Scheduler
from fedft.store import RunStore
from fedft.transport.broker import Broker
from tests.deployment import wait_until
from tests.federation import tiny_config


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (ZeroDivisionError("1/0"), "FEDFT-6213", "failed"),
        (FedftError("FEDFT-6109", "too few sketches"), "FEDFT-6109", "failed"),
        (FedftError("FEDFT-6102", "too few updates"), "FEDFT-6102", "waiting"),
        (FedftError("FEDFT-6101", "too few clients"), "FEDFT-6101", "waiting"),
    ],
)
def test_a_run_that_fails_rests_unless_it_only_lacks_clients(
    error: Exception, code: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, registry = RunStore(tmp_path / "store"), Registry(tmp_path / "server.sqlite")
    board, metrics = Broker(3.0), ServerMetrics(lambda: 0)
    scheduler = Scheduler(
        store, registry, board, Ed25519PrivateKey.generate(), EventStream(), metrics, retry_seconds=60.0
    )

    def execute(coordinator: Coordinator) -> None:
        store.set_status(run.id, "failed", str(error))
        raise error

    monkeypatch.setattr(Coordinator, "execute", execute)
    run = scheduler.begin(tiny_config(tmp_path))
    scheduler.start()
    try:
        wait_until(lambda: store.events(run.id) and not scheduler.current, 20)
        assert scheduler.is_alive()
        assert scheduler.state(store.run(run.id), registry.wanted()[run.id]) == state
        assert code in str(store.events(run.id)[-1])
    finally:
        scheduler.end()
        scheduler.join(10)
