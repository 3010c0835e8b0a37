"""A simulated client whose process dies must not swallow work: the run goes on from the last commit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedft.client.worker.answer import answer, process_worker
from fedft.coordinator.events import Notice
from fedft.errors import FedftError
from fedft.simulation.simulate import simulate
from fedft.store import RunStore
from tests.federation import run_inline, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


def _app_that_dies(marker: Path, *, every_time: bool) -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return answer(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        doomed = message.metadata.group_id == "2" and context.node_config["partition-id"] == 1
        if doomed and (every_time or not marker.exists()):
            marker.write_text(str(os.nice(0)))
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(message, context)

    return app


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    process_worker.cache_clear()


def test_the_engine_is_restarted_and_the_result_is_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run_inline(tiny_config(tmp_path))[1].final_digest
    dying = _app_that_dies(tmp_path / "died", every_time=False)
    monkeypatch.setattr("fedft.client.app.new_app", lambda _folders: dying)
    config = tiny_config(tmp_path, **{"simulation.backend": "ray", "store.path": str(tmp_path / "ray")})
    seen: list[object] = []

    run = simulate(config, store=RunStore(config.store.path), observer=seen.append)

    assert run.final_digest == undisturbed
    notices = [event.kind for event in seen if isinstance(event, Notice)]
    assert notices == ["engine-restarted"]
    assert int((tmp_path / "died").read_text()) == os.nice(0), "workers have the command's own priority"


def test_a_process_that_always_dies_ends_the_run_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = _app_that_dies(tmp_path / "died", every_time=True)
    monkeypatch.setattr("fedft.client.app.new_app", lambda _folders: dying)
    config = tiny_config(tmp_path, **{"simulation.backend": "ray", "rounds.retries": 0})
    store = RunStore(config.store.path)

    with pytest.raises(FedftError, match="FEDFT-6107"):
        simulate(config, store=store)

    run = store.runs()[-1]
    assert (run.status, run.rounds) == ("failed", 1)
