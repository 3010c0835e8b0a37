"""One federation with another package's frame, codec, method, task, quantised format and rule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.federation import tiny_config

HERE = Path(__file__).parent
POINTS = {
    "fedft.frames": "axes = fedft_extras.frame:AXES",
    "fedft.codecs": "half = fedft_extras.codec:HALF",
    "fedft.methods": "halfway = fedft_extras.method:HALFWAY",
    "fedft.tasks": "whole-text = fedft_extras.task:WholeText",
    "fedft.quant": "float16 = fedft_extras.quant:FLOAT16",
    "fedft.aggregation": "between = fedft_extras.rule:BETWEEN",
}
SETTINGS = {
    "adapter.initialiser": "axes",
    "adapter.first_axis": 2,
    "codec.name": "half",
    "codec.places": 16,
    "method": "halfway",
    "task.kind": "whole-text",
    "task.context": 3,
    "model.quant": "float16",
    "aggregation.rule": "between",
    "aggregation.share": 0.25,
    "rounds.weighting": "uniform",
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fedft(tmp_path: Path) -> Run:
    """Run the command in a process of its own, where the package is installed, or is not."""
    tiny_config(tmp_path)
    installed = tmp_path / "site-packages"
    info = installed / "fedft_extras-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedft-extras\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{point}\n" for group, point in POINTS.items())
    )

    def run(*arguments: object, plugins: bool = True) -> subprocess.CompletedProcess[str]:
        path = [str(HERE.parents[1]), *([str(HERE), str(installed)] if plugins else [])]
        sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
        return subprocess.run(
            [sys.executable, "-c", "from fedft.cli.main import main; main()", *map(str, arguments), *sets],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "COLUMNS": "200"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def simulated(fedft: Run, tmp_path: Path) -> dict[str, Any]:
    done = fedft("simulate", tmp_path / "run.toml", "--json")
    assert done.returncode == 0, done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def test_a_federation_runs_with_all_six_and_nothing_here_knows_them(fedft: Run, tmp_path: Path) -> None:
    summary = simulated(fedft, tmp_path)
    shown = fedft("config", "show", tmp_path / "run.toml", "--json")

    assert (summary["event"], summary["status"]) == ("summary", "completed")
    config = json.loads(shown.stdout)["config"]
    for key, value in SETTINGS.items():
        section, _, name = key.rpartition(".")
        assert (config[section] if section else config)[name] == value
    sources = [path.read_text(encoding="utf-8") for path in (HERE.parents[1] / "fedft").rglob("*.py")]
    known = ("axes", "halfway", "whole-text", "fedft_extras", "first_axis", "between")
    assert [word for word in known if any(f'"{word}"' in source for source in sources)] == []


def test_without_the_package_every_name_is_a_mistake(fedft: Run, tmp_path: Path) -> None:
    refused = fedft("config", "validate", tmp_path / "run.toml", plugins=False)

    assert refused.returncode == 2
    for key in (
        "adapter.initialiser",
        "codec.name",
        "method",
        "task.kind",
        "model.quant",
        "aggregation.rule",
    ):
        assert f"{key}: " in refused.stderr


def test_a_wrong_option_is_found_with_its_path(fedft: Run, tmp_path: Path) -> None:
    refused = fedft("config", "validate", tmp_path / "run.toml", "--set", "codec.place=3")

    assert refused.returncode == 2
    assert "codec.place: unknown key, did you mean places?" in refused.stderr
