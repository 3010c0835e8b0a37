"""Real processes on loopback, killed, stopped and cut at random moments.

FEDFT_KILLS sets how often the server, and a site's processes, are killed (default: few, for every change).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedft.client.worker.answer import process_worker
from fedft.config import RunConfig
from fedft.wire.v1 import admin_pb2 as pb
from tests.deployment import Deployment, wait_until
from tests.federation import run_inline, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployment"), pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("FEDFT_KILLS", "4"))
FAST = {"evaluation.every": 0, "training.steps": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def deployment(folder: Path) -> Iterator[Deployment]:
    with Deployment(folder / "deployment") as running:
        yield running.start()


@pytest.fixture
def _steady(deployment: Deployment) -> None:
    """Bring back what an earlier test has ended."""
    if deployment.server is None or not deployment.server.alive:
        deployment.start_server()
    for name in deployment.names:
        if not deployment.daemons[name].alive:
            deployment.start_site(name)
    deployment.wait_connected(*deployment.names)


def _config(folder: Path, rounds: int, **changes: object) -> RunConfig:
    return tiny_config(folder, **{**FAST, "rounds.total": rounds, **changes})


def _undisturbed(config: RunConfig, folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "inline-cache"))
        process_worker.cache_clear()
        return run_inline(config)[1].final_digest


@pytest.mark.usefixtures("_steady")
def test_a_server_killed_again_and_again_comes_back_by_itself_and_ends_with_the_same_bits(
    deployment: Deployment, folder: Path
) -> None:
    config = _config(folder, 6)
    expected = _undisturbed(config, folder)
    rng, kills, killed_after = random.Random(7), 0, set[int]()
    while kills < KILLS:
        run = deployment.start_run(config)
        for _ in range(min(5, KILLS - kills)):
            committed = deployment.rounds(run)
            _wait_for_progress(deployment, run, committed)
            if done(deployment, run):
                break
            time.sleep(rng.uniform(0.0, 0.5))
            assert deployment.server is not None
            deployment.server.kill()
            kills += 1
            killed_after.add(committed)
            deployment.start_server()
            wait_until(deployment.connected)
        found = deployment.wait_complete(run)
        assert found["final_digest"] == expected
        assert _each_counted_once(found)
    assert len(killed_after) > 1 or KILLS < 3


@pytest.mark.usefixtures("_steady")
def test_daemons_and_workers_killed_at_random_moments_cost_no_more_than_their_round(
    deployment: Deployment, folder: Path
) -> None:
    # Steps enough that kills fall into the training, and a deadline that rounds must keep.
    deadline = 60.0
    changes = {"training.steps": 40, "rounds.min_replies": 1, "rounds.deadline": deadline}
    rng, kills, back, runs = random.Random(3), 0, list[float](), list[str]()
    while kills < KILLS:
        run = deployment.start_run(_config(folder, 8, **changes))
        runs.append(run)
        while kills < KILLS and not done(deployment, run):
            time.sleep(rng.uniform(0.5, 2.0))
            back += kill_worker_or_daemon(deployment, rng)
            kills += 1
        found = deployment.wait_complete(run)
        assert _each_counted_once(found)
        assert all(record["phases"]["training"] < deadline + 5 for record in found["committed"][1:])
    print(f"{kills} kills; back after {[round(seconds, 1) for seconds in back]} s")
    assert not back or sorted(back)[len(back) // 2] < 10
    for name in deployment.names:
        deployment.wait_connected(name)


@pytest.mark.usefixtures("_steady")
def test_a_site_that_never_answers_is_late_and_takes_part_again_later(
    deployment: Deployment, folder: Path
) -> None:
    config = _config(folder, 3, **{"rounds.deadline": 8.0, "rounds.min_replies": 2, "rounds.retries": 0})
    run = deployment.start_run(config)
    deployment.wait_round(run, 0)
    silent = deployment.daemons["client-001"].popen.pid
    os.kill(silent, signal.SIGSTOP)
    try:
        deployment.wait_round(run, 2)
    finally:
        os.kill(silent, signal.SIGCONT)
    found = deployment.wait_complete(run)
    parts = [update for record in found["committed"][1:] for update in record["updates"]]
    late = [update for update in parts if update["status"] == "late"]
    assert {update["client"] for update in late} == {"client-001"}
    assert all(record["phases"]["training"] < 13 for record in found["committed"][1:])
    again = deployment.wait_complete(deployment.start_run(_config(folder, 1)))
    assert [update["status"] for update in again["committed"][1]["updates"]] == ["accepted"] * 3


@pytest.mark.usefixtures("_steady")
def test_a_paused_run_rests_over_a_restart_and_ends_with_the_same_bits(
    deployment: Deployment, folder: Path
) -> None:
    config = _config(folder, 6)
    expected = _undisturbed(config, folder)
    run = deployment.start_run(config)
    deployment.wait_round(run, 1)
    deployment.call("PauseRun", pb.RunRequest(run=run))
    rested = deployment.wait_state(run, "paused")["rounds"]
    assert deployment.server is not None
    assert deployment.server.terminate() == 0
    deployment.start_server()
    deployment.wait_connected(*deployment.names)
    assert deployment.run(run)["state"] == "paused"
    assert deployment.rounds(run) == rested < 6
    deployment.call("ResumeRun", pb.RunRequest(run=run))
    assert deployment.wait_complete(run)["final_digest"] == expected


@pytest.mark.usefixtures("_steady")
def test_a_second_daemon_with_the_same_identity_ends_with_its_code(
    deployment: Deployment, folder: Path
) -> None:
    beside = deployment.start_site_from("client-000", deployment.folder / "client-000")
    assert beside.popen.wait(60) != 0
    assert "FEDFT-7052" in beside.log.read_text()

    copy = folder / "copy"
    shutil.copytree(deployment.folder / "client-000", copy)
    stolen = deployment.start_site_from("copy", copy)
    assert stolen.popen.wait(120) != 0
    assert "FEDFT-7034" in stolen.log.read_text()
    incidents = deployment.call("ReadIncidents", pb.IncidentsRequest(last=50))["incidents"]
    assert ("client-000", "FEDFT-7034") in {(item["member"], item["code"]) for item in incidents}
    assert deployment.daemons["client-000"].alive


@pytest.mark.usefixtures("_steady")
def test_a_full_disk_at_a_site_declines_its_part_and_harms_no_round(
    deployment: Deployment, folder: Path
) -> None:
    site = deployment.site("client-002")
    text = site.read_text()
    site.write_text(text.replace("[limits]\n", f"[limits]\nmin_free_bytes = {2**62}\n"))
    deployment.daemons["client-002"].terminate()
    deployment.start_site("client-002")
    try:
        deployment.wait_connected("client-002")
        config = _config(folder, 2, **{"rounds.min_replies": 2, "rounds.min_clients": 2})
        found = deployment.wait_complete(deployment.start_run(config))
    finally:
        site.write_text(text)
        deployment.daemons["client-002"].terminate()
    declined = [u for u in found["committed"][0]["updates"] if u["status"] == "refused"]
    assert [u["code"] for u in declined] == ["FEDFT-7055"]
    assert "FEDFT-7055" in deployment.status("client-002").last_error


@pytest.mark.usefixtures("_steady")
def test_sigterm_ends_a_daemon_in_the_middle_of_a_round(deployment: Deployment, folder: Path) -> None:
    changes = {"training.steps": 4000, "rounds.min_replies": 1, "rounds.deadline": 10.0}
    run = deployment.start_run(_config(folder, 1, **changes))
    wait_until(lambda: deployment.status("client-001").phase == "train")
    start = time.monotonic()
    assert deployment.daemons["client-001"].terminate() == 0
    assert time.monotonic() - start < 15
    deployment.call("StopRun", pb.RunRequest(run=run))
    deployment.wait_state(run, "stopped")


@pytest.mark.usefixtures("_steady")
def test_a_revoked_site_is_put_out_in_the_middle_of_a_run_that_goes_on(
    deployment: Deployment, folder: Path
) -> None:
    changes = {"rounds.min_replies": 2, "rounds.deadline": 15.0}
    run = deployment.start_run(_config(folder, 4, **changes))
    deployment.wait_round(run, 1)
    deployment.call("RevokeClient", pb.RevokeRequest(name="client-002", reason="laptop stolen"))
    daemon = deployment.daemons["client-002"]
    assert daemon.popen.wait(30) != 0
    assert "FEDFT-7033" in daemon.log.read_text()
    found = deployment.wait_complete(run)
    assert found["rounds"] == 4
    assert deployment.call("ShowClient", pb.ClientRequest(name="client-002"))["revoked_at"]


def _wait_for_progress(deployment: Deployment, run: str, committed: int) -> None:
    deployment.wait(
        lambda: deployment.rounds(run) > committed or done(deployment, run),
        400,
        f"{run} does not get beyond round {committed}",
    )


def done(deployment: Deployment, run: str) -> bool:
    """Whether a run has ended; not while the server is away."""
    try:
        return deployment.run(run)["state"] in ("completed", "failed")
    except Exception:
        return False


def _each_counted_once(found: dict[str, Any]) -> bool:
    """Whether no client has two parts in a round, and no reply was accepted twice in the run."""
    for record in found["committed"][1:]:
        clients = [update["client"] for update in record["updates"]]
        assert len(clients) == len(set(clients))
    accepted = [
        update["digest"]
        for record in found["committed"][1:]
        for update in record["updates"]
        if update["status"] == "accepted"
    ]
    return len(accepted) == len(set(accepted))


def kill_worker_or_daemon(deployment: Deployment, rng: random.Random) -> list[float]:
    """Kill a site's worker, or its daemon and start it anew; return the seconds until a daemon was back."""
    name = rng.choice(deployment.names)
    if rng.random() < 0.5 and (pid := deployment.status(name).worker_pid):
        _kill(pid)
        return []
    deployment.daemons[name].kill()
    start = time.monotonic()
    deployment.start_site(name)
    deployment.wait_connected(name)
    return [time.monotonic() - start]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
