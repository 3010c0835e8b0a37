"""Folders that are there as a whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from transformers import PreTrainedTokenizerFast

from fedft.errors import FedftError
from fedft.files import new_folder
from fedft.simulation.checkpoints import ExportKind, export_run
from tests.federation import run_inline, tiny_config

KILLED = """
import os, signal
from pathlib import Path
from fedft.files import new_folder
with new_folder(Path("out")) as begun:
    (begun / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_is_killed_leaves_no_folder_of_the_name_and_the_next_begins_anew(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path).returncode == -9
    assert not (tmp_path / "out").exists()

    with new_folder(tmp_path / "out") as begun:
        (begun / "config").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config"]


@pytest.mark.parametrize("kind", ["peft", "merged"])
def test_an_export_that_is_cut_short_leaves_no_folder(
    kind: ExportKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, **{"rounds.total": 1, "evaluation.every": 0})
    store, run = run_inline(config)
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedTokenizerFast, "save_pretrained", Mock(side_effect=OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            export_run(store, run, tmp_path / "out" / kind, kind)
    assert list((tmp_path / "out").iterdir()) == []
    assert any(export_run(store, run, tmp_path / "out" / kind, kind).iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as begun:
        (begun / "weights").write_text("whole")
    with pytest.raises(FedftError, match="FEDFT-6008"), new_folder(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty" / "weights").read_text() == "whole"
