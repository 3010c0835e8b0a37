"""A seed decides what goes wrong; schedules that once found something are tried again."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.soak.run import KEPT
from tests.soak.schedule import KINDS, Schedule
from tests.soak.usage import growing

ALLOWED = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0


def test_a_seed_decides_every_fault() -> None:
    first, again, other = (Schedule.drawn(seed, 300, 5, 10.0) for seed in (1, 1, 2))
    assert first == again != other
    counted = Counter(fault.kind for fault in Schedule.drawn(3, 4000, 5, 10.0).faults)
    assert set(counted) == set(KINDS)
    assert 300 < counted.total() < 500
    assert all(fault.after < 298 and 0 <= fault.site < 5 for fault in first.faults)


def test_a_kept_schedule_is_the_one_that_was_written(tmp_path: Path) -> None:
    drawn = Schedule.drawn(7, 40, 3, 5.0)
    drawn.write(tmp_path / "one.json")
    assert Schedule.read(tmp_path / "one.json") == drawn


def test_growth_is_told_from_the_start_and_from_a_log_that_has_its_size() -> None:
    flat = {
        "memory MiB": {"server": [200.0, 450.0, 455.0, 460.0]},
        "disk KiB": {"state": [9.0, 50.0, 4000.0, 4100.0]},
    }
    assert growing(flat) == []
    assert growing({"memory MiB": {"server": [200.0, 450.0, 600.0, 750.0]}}) == [
        "memory MiB of server grows: [200.0, 450.0, 600.0, 750.0]"
    ]
    assert len(growing({"disk KiB": {"state": [10.0, 100.0, 5000.0, 10_000.0]}})) == 1


@pytest.mark.slow
@pytest.mark.xdist_group("deployment")
@pytest.mark.skipif(not ALLOWED, reason="a mount namespace takes root")
@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_a_schedule_that_found_something_finds_nothing_any_more(path: Path) -> None:
    command = ["unshare", "-m", sys.executable, "-m", "tests.soak.run", "--inside", "--schedule", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stdout[-4000:]
