"""Killing the process that carries a run, at any moment, must not change a bit of its result."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fedft.client.worker.answer import process_worker
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.store import RunStore
from tests.federation import run_inline, tiny_config

KILLS = 20


def _in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process, which has torch loaded already; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def _killed(child: int, after: float) -> bool:
    """Kill the child ``after`` seconds; whether it was still running then."""
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            assert os.waitstatus_to_exitcode(status) == 0
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    "codecs",
    [{"codec.name": "dense"}, {"codec.name": "ternary", "codec.downlink": "int8"}],
    ids=["dense", "ternary with residuals, coded broadcast"],
)
def test_a_run_killed_at_random_moments_and_resumed_ends_with_the_same_bits(
    codecs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    process_worker.cache_clear()
    config = tiny_config(
        tmp_path, **codecs, **{"rounds.total": 12, "rounds.cohort": 2, "evaluation.every": 4}
    )
    start = time.monotonic()
    undisturbed = run_inline(config)[1].final_digest
    whole = time.monotonic() - start
    rng, kills, resumed_from = random.Random(5), 0, set()

    while kills < KILLS:
        process_worker.cache_clear()
        run_id = RunStore(config.store.path).create_run(config.name, to_json(config)).id
        while _killed(_in_child(partial(_carry_on, config, run_id)), rng.uniform(0.02, whole)):
            kills += 1
            resumed_from.add(RunStore(config.store.path).last_round(run_id))
        finished = RunStore(config.store.path).run(run_id)
        assert finished.status == "completed"
        assert finished.final_digest == undisturbed
    assert len(resumed_from) > 3, "the kills all fell into the same place"


def _carry_on(config: RunConfig, run_id: str) -> None:
    store = RunStore(config.store.path)
    run_inline(config, store=store, run=store.run(run_id))
