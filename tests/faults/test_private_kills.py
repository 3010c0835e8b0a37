"""Whatever is killed and whenever: a ledger never holds less than what has left its client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("FEDFT_PRIVATE_KILLS", "4"))

pytestmark = pytest.mark.timeout(max(600, 30 * KILLS))


def test_the_ledgers_hold_what_was_released(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.private_kills", str(tmp_path), str(KILLS), "1"]
    finished = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    summary = json.loads(finished.stdout.splitlines()[-1])
    print(summary)

    assert summary["kills"] == KILLS
    assert summary["completed"] == summary["runs"] >= 1
    assert summary["charged"] >= summary["released"] >= summary["runs"] * 5 * 3
