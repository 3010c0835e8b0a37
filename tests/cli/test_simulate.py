"""The commands around the simulation; the simulation itself is replaced by one that writes records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fedft.simulation.baselines
import fedft.simulation.checkpoints
import fedft.simulation.simulate
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.coordinator.events import Observer, RoundCommitted, RunFinished, RunStarted
from fedft.errors import FedftError
from fedft.store import EvaluationRecord, RunRecord, RunStore
from tests.cli.run import fedft as run_fedft
from tests.cli.run import output_json, words
from tests.store.build import add_run, beginning, digest, evaluations, state, store_with_run, training_round


class Federation:
    """Stands for the simulation: commits rounds, and stops after ``stop_after`` with ``error``."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.stop_after: int | None = None
        self.error: BaseException | None = None

    def __call__(
        self,
        config: RunConfig | None = None,
        *,
        store: RunStore,
        resume: str = "",
        observer: Observer,
    ) -> RunRecord:
        self.calls.append({"config": config, "store": store, "resume": resume})
        run = store.run(resume) if config is None else store.create_run(config.name, to_json(config))
        total = config.rounds.total if config else 2
        first = (store.last_round(run.id) if resume else None) or 0
        observer(RunStarted(run.id, run.name, first + 1, total))
        for record in [beginning(), *map(training_round, range(1, total + 1))]:
            if record.round == self.stop_after:
                store.set_status(run.id, "interrupted" if self.error is None else "failed")
                raise self.error or KeyboardInterrupt
            if record.round > first or not resume:
                store.commit_round(run.id, record, state(record.round))
                observer(RoundCommitted(record))
        store.update_run(run.id, status="completed", final_digest=digest(total))
        observer(RunFinished(run.id, digest(total)))
        return store.run(run.id)


@pytest.fixture
def federation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Federation:
    monkeypatch.chdir(tmp_path)
    replaced = Federation()
    monkeypatch.setattr(fedft.simulation.simulate, "simulate", replaced)
    return replaced


def test_simulate_shows_rounds_headline_and_what_to_do_next(federation: Federation, tmp_path: Path) -> None:
    result = run_fedft("simulate", "demo", "--set", "rounds.total=2", "--set", "seed=9")

    run = RunStore(tmp_path / "runs").run("latest")
    text = words(result.stdout)
    assert result.exit_code == 0
    assert "round 1/2 exact match 37.5 %" in text
    assert f"completed {run.id}" in text
    assert "all 40 12.5 % 62.5 % +50.0 points" in text
    assert "age 20 12.5 % 62.5 % +50.0 points" in text
    assert "up 667 B, down 1.10 kB a client and round; setup and frame 15.0 kB" in text
    assert f"fedft report {run.id}" in text
    assert f"fedft export peft {run.id} adapter/" in text
    assert "--store" not in text
    config = federation.calls[0]["config"]
    assert (config.rounds.total, config.seed) == (2, 9)


def test_the_store_may_be_chosen_and_is_named_in_the_next_commands(
    federation: Federation, tmp_path: Path
) -> None:
    folder = tmp_path / "my store"

    result = run_fedft("simulate", "demo", "--store", folder)

    assert RunStore(folder, create=False).run("latest").status == "completed"
    assert federation.calls[0]["config"].store.path == str(folder)
    assert f"--store '{folder}'" in result.stdout


def test_quiet_prints_the_run_and_nothing_else(federation: Federation, tmp_path: Path) -> None:
    result = run_fedft("simulate", "demo", "--quiet")

    assert result.stdout == f"{RunStore(tmp_path / 'runs').run('latest').id}\n"
    assert result.stderr == ""


def test_json_is_a_line_an_event_and_a_summary(federation: Federation, tmp_path: Path) -> None:
    result = run_fedft("simulate", "demo", "--json", "--set", "rounds.total=2")

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["event"] for line in lines] == [
        "run_started",
        *["round_committed"] * 3,
        "run_finished",
        "summary",
    ]
    assert lines[-1]["final_digest"] == digest(2)
    assert lines[-1]["quality"][0]["after"] == 0.625
    assert result.stderr == ""


def test_an_interrupt_leaves_the_run_and_says_how_to_go_on(federation: Federation, tmp_path: Path) -> None:
    federation.stop_after = 2
    result = run_fedft("simulate", "demo", "--store", tmp_path / "s")

    run = RunStore(tmp_path / "s").run("latest")
    assert result.exit_code == 130
    assert result.stderr.startswith("interrupted\n")
    assert f"fedft simulate --resume {run.id} --store {tmp_path / 's'}" in result.stderr
    assert "1 round is committed" in result.stderr


def test_resume_goes_on_with_the_runs_own_configuration(federation: Federation, tmp_path: Path) -> None:
    federation.stop_after = 2
    run_fedft("simulate", "demo", "--set", "rounds.total=2")
    federation.stop_after = None

    result = run_fedft("simulate", "--resume", "latest")

    run = RunStore(tmp_path / "runs").run("latest")
    assert result.exit_code == 0
    assert federation.calls[1]["config"] is None
    assert federation.calls[1]["resume"] == run.id
    assert f"run {run.id} goes on with round 2 of 2" in result.stdout
    assert run.status == "completed"


@pytest.mark.parametrize("changes", [("demo",), ("--set", "seed=3")])
def test_resume_refuses_another_configuration(federation: Federation, tmp_path: Path, changes: Any) -> None:
    store_with_run(tmp_path / "runs")

    result = run_fedft("simulate", *changes, "--resume", "latest")

    assert result.exit_code == 2
    assert "FEDFT-1007" in result.stderr
    assert federation.calls == []


def test_a_failed_run_says_why_and_how_to_go_on(federation: Federation, tmp_path: Path) -> None:
    federation.stop_after, federation.error = 1, FedftError("FEDFT-6102", "too few", hint="ask more")

    plain = run_fedft("simulate", "demo")
    scripted = run_fedft("simulate", "demo", "--json")

    assert plain.exit_code == scripted.exit_code == 1
    assert "error FEDFT-6102  too few\nhint  ask more\n" in plain.stderr
    assert "simulate --resume" in plain.stderr
    last = json.loads(scripted.stdout.splitlines()[-1])
    assert (last["event"], last["code"], last["hint"]) == ("error", "FEDFT-6102", "ask more")


def test_mistakes_stop_a_run_before_it_starts(federation: Federation, tmp_path: Path) -> None:
    result = run_fedft("simulate", "demo", "--set", "adapter.rank=0")

    assert result.exit_code == 2
    assert "adapter.rank" in result.stderr
    assert federation.calls == []
    assert not (tmp_path / "runs").exists()


def test_the_demo_writes_its_report(federation: Federation, tmp_path: Path) -> None:
    result = run_fedft("demo", "--store", tmp_path / "s")

    run = RunStore(tmp_path / "s").run("latest")
    report = tmp_path / "s" / "reports" / f"{run.id}.html"
    assert f"report {report}" in words(result.stdout)
    assert run.id in report.read_text(encoding="utf-8")
    assert "all 40 12.5 %" in words(result.stdout)


def test_the_demo_compares(federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(store: RunStore, run: RunRecord, _observer: Observer) -> None:
        last = store.last_round(run.id)
        assert last is not None
        store.put_evaluations(run.id, last, evaluations(0.875, "pooled"))

    monkeypatch.setattr(fedft.simulation.baselines, "compare", compare)

    result = run_fedft("demo", "--compare", "--json", "--store", tmp_path / "s")
    shown = run_fedft("runs", "show", "--store", tmp_path / "s")

    summary = json.loads(result.stdout.splitlines()[-1])
    assert Path(summary["report"]).exists()
    assert "central, on pooled data" in Path(summary["report"]).read_text(encoding="utf-8")
    assert "central, on pooled data 87.5 %" in words(shown.stdout)


def test_an_interrupted_comparison_leaves_the_run_complete(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fedft.simulation.baselines, "compare", interrupt)

    result = run_fedft("demo", "--compare")

    assert result.exit_code == 130
    assert "the run itself is complete" in result.stderr
    assert "fedft report" in result.stderr


def test_evaluate_prints_the_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[str, int, str | None]] = []

    def evaluate(_store: RunStore, run: RunRecord, number: int, data: str | None) -> list[EvaluationRecord]:
        calls.append((run.id, number, data))
        return list(evaluations(0.5))

    monkeypatch.setattr(fedft.simulation.checkpoints, "evaluate_run", evaluate)
    store, run = store_with_run(tmp_path)
    add_run(store, rounds=1, name="later")

    text = words(run_fedft("evaluate", run.id, "--store", tmp_path).stdout)
    values = output_json(
        run_fedft("evaluate", run.id, "--round", 1, "--data", "more.jsonl", "--store", tmp_path, "--json")
    )

    assert f"{run.id}, after round 2" in text
    assert "all 40 1.500 50.0 % age 20 1.500 50.0 %" in text
    assert values["evaluations"][0]["metrics"]["exact_match"] == 0.5
    assert calls == [(run.id, 2, None), (run.id, 1, "more.jsonl")]


@pytest.mark.parametrize("kind", ["peft", "merged"])
def test_export_passes_run_round_and_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    calls: list[tuple[object, ...]] = []

    def export(_store: RunStore, run: RunRecord, out: Path, chosen: str, number: int) -> Path:
        calls.append((run.id, out, chosen, number))
        return out

    monkeypatch.setattr(fedft.simulation.checkpoints, "export_run", export)
    _, run = store_with_run(tmp_path)

    result = run_fedft("export", kind, "latest", tmp_path / "out", "--store", tmp_path)
    values = output_json(
        run_fedft("export", kind, "latest", tmp_path / "out", "--round", 1, "--store", tmp_path, "--json")
    )

    assert str(tmp_path / "out") in result.stdout
    assert (values["format"], values["round"]) == (kind, 1)
    assert calls == [(run.id, tmp_path / "out", kind, 2), (run.id, tmp_path / "out", kind, 1)]
