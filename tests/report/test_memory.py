"""The report's account of memory: planned and measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedft.report import facts
from fedft.report.page import render, write_report
from fedft.store import RoundRecord
from fedft.training.memory_plan import MemoryPlan
from tests.federation import run_inline, tiny_config
from tests.report.test_page import Page
from tests.store.build import store_with_run, update

PLAN = MemoryPlan(weights=4000, frames=300, trainable=20, workspace=0, activations=100_000)


def held(*peaks: float) -> RoundRecord:
    return RoundRecord(1, "", updates=tuple(update("c", metrics={"peak_memory": peak}) for peak in peaks))


def test_the_most_that_a_client_said() -> None:
    assert facts.peak_memory([held(3.0, 7.0), held(5.0)]) == 7.0
    assert facts.peak_memory([RoundRecord(1, "", updates=(update("c"),))]) is None


def test_planned_beside_measured(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)
    rounds = [*store.rounds(run.id), replace(held(250e6), round=9)]

    both = Page(render(run, rounds, [], plan=PLAN)).text
    measured = Page(render(run, rounds, [])).text

    assert "held at most 250 MB above" in both
    assert "planned to need 104 kB" in both
    assert "activations and temporaries 100 kB" in both
    assert "held at most 250 MB above" in measured
    assert "planned" not in measured
    assert "held at most" not in Page(render(run, store.rounds(run.id), [])).text


def test_a_run_measures_and_its_report_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    store, run = run_inline(tiny_config(tmp_path, **{"rounds.total": 1}))

    (measured,) = {u.metrics["peak_memory"] > 0 for u in store.rounds(run.id)[1].updates}
    write_report(store, run, tmp_path / "report.html")
    assert measured
    assert "planned to need" in Page((tmp_path / "report.html").read_text()).text

    (tmp_path / "model" / "config.json").unlink()  # the model is not there any more
    write_report(store, run, tmp_path / "report.html")
    assert "planned" not in Page((tmp_path / "report.html").read_text()).text
