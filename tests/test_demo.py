"""What the README promises of the demo, on the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedft.simulation.baselines import train_pooled
from fedft.simulation.checkpoints import open_round
from fedft.store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.timeout(1500)]


def test_the_demo_learns_what_its_base_does_not_know_and_keeps_up_with_central_training(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [
        str(Path(sys.executable).parent / "fedft"),
        "demo",
        "--json",
        "--store",
        str(tmp_path / "store"),
    ]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    summary = json.loads(finished.stdout.splitlines()[-1])
    store = RunStore(tmp_path / "store")
    rounds = store.rounds(summary["run"])
    before, after = (rounds[i].evaluations[0].metrics["exact_match"] for i in (0, -1))

    session = open_round(store, store.run(summary["run"]), 0)
    train_pooled(session)
    central = session.evaluate(session.data.test[0]).values()["exact_match"]

    assert Path(summary["report"]).stat().st_size > 50_000
    assert all(update.metrics["model_loads"] == 0 for record in rounds[2:] for update in record.updates)
    assert after >= before + 0.40
    assert after >= central - 0.03
