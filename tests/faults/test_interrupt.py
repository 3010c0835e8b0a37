"""Ctrl-C in a real process on the Ray backend."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fedft.cli.output import INTERRUPTED
from fedft.store import RunStore
from tests.deployment import FEDFT, wait_until
from tests.federation import run_inline, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.timeout(900)]


def _fedft(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    places = {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_DATA_HOME": str(folder / "state")}
    command = [FEDFT, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**os.environ, **places}, stdout=pipe, stderr=pipe, text=True)


def _committed(folder: Path) -> int:
    """How many rounds are committed, the state before training included."""
    if not (folder / "runs").exists():
        return 0
    time.sleep(0.5)
    store = RunStore(folder / "runs")
    return sum(len(store.rounds(run.id)) for run in store.runs())


def test_ctrl_c_ends_a_run_and_leaves_it_to_be_resumed(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"rounds.total": 6, "store.path": str(tmp_path / "inline")})
    undisturbed = run_inline(config)[1].final_digest
    store = ("--store", tmp_path / "runs")
    options = ("--set", "simulation.backend=ray", "--set", "rounds.total=6")
    process = _fedft(tmp_path, "simulate", tmp_path / "run.toml", *options, *store)
    wait_until(lambda: _committed(tmp_path) >= 2, 240)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)

    assert process.returncode == INTERRUPTED
    assert errors.startswith("interrupted\n")
    assert "fedft simulate --resume" in errors
    assert "Traceback" not in errors
    (run,) = RunStore(tmp_path / "runs").runs()
    assert run.status == "interrupted"
    resumed = _fedft(tmp_path, "simulate", "--resume", run.id, *store)
    assert resumed.wait(240) == 0
    assert RunStore(tmp_path / "runs").run(run.id).final_digest == undisturbed


def test_a_second_ctrl_c_does_not_wait_for_the_clients(tmp_path: Path) -> None:
    tiny_config(tmp_path)
    options = ("--set", "simulation.backend=ray", "--set", "training.steps=1000000")
    process = _fedft(tmp_path, "simulate", tmp_path / "run.toml", *options, "--store", tmp_path / "runs")
    wait_until(lambda: _committed(tmp_path) >= 1, 240)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: RunStore(tmp_path / "runs").runs()[0].status == "interrupted", 120)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode in (INTERRUPTED, -signal.SIGINT)  # the latter at the end of the interpreter
    assert "Traceback" not in errors
