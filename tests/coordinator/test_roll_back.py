"""A run that is taken back to a round and goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedft.config.load import from_json
from fedft.store import RunRecord, RunStore
from tests.federation import run_inline, tiny_config


def _resume(store: RunStore, run_id: str) -> RunRecord:
    run = store.run(run_id)
    return run_inline(from_json(run.config), store=store, run=run)[1]


@pytest.mark.parametrize("to", [0, 1, 3])
def test_without_residuals_it_ends_with_the_bits_it_had(tmp_path: Path, to: int) -> None:
    store, run = run_inline(tiny_config(tmp_path, **{"rounds.total": 3, "codec.name": "dense"}))
    store.roll_back(run.id, to)
    again = _resume(store, run.id)
    assert (again.status, again.final_digest) == ("completed", run.final_digest)


def test_what_was_left_out_in_rounds_taken_back_is_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = run_inline(tiny_config(tmp_path, **{"rounds.total": 4, "codec.name": "ternary"}))
    store.roll_back(run.id, 3)
    assert _resume(store, run.id).final_digest == run.final_digest
    assert "empty residual" not in capsys.readouterr().err

    store.roll_back(run.id, 1)
    again = _resume(store, run.id)
    assert again.status == "completed"
    assert capsys.readouterr().err.count("back at round 2; beginning with an empty residual") == 3


def test_history_says_so(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path, **{"rounds.total": 2}))
    store.roll_back(run.id, 1)
    assert [e["kind"] for e in RunStore(store.folder).events(run.id)][-1] == "rolled-back"
