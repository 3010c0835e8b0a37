"""The whole of it on real processes: the digest of the simulation, a resident model, the operator's verbs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedft.cli.main import app
from fedft.client.worker.answer import process_worker
from fedft.config.render import to_toml
from tests.deployment import Deployment
from tests.federation import run_inline, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deployment")


@pytest.fixture(scope="module")
def deployment(folder: Path) -> Iterator[Deployment]:
    with Deployment(folder / "deployment") as running:
        yield running.start()


def test_the_link_ends_with_the_digest_of_the_simulation_and_loads_each_model_once(
    deployment: Deployment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "inline-cache"))
    process_worker.cache_clear()
    config = tiny_config(folder, **{"rounds.total": 3, "evaluation.federated": True})
    expected = run_inline(config)[1].final_digest

    found = deployment.wait_complete(deployment.start_run(config))

    assert found["final_digest"] == expected
    updates = [update for record in found["committed"][1:] for update in record["updates"]]
    assert [update["status"] for update in updates] == ["accepted"] * 9
    loads = {u["client"]: 0.0 for u in updates}
    for record in found["committed"][2:]:
        for update in record["updates"]:
            loads[update["client"]] += update["metrics"]["model_loads"]
    assert loads == {"client-000": 0.0, "client-001": 0.0, "client-002": 0.0}
    assert [deployment.status(name).worker_starts for name in deployment.names] == [1, 1, 1]


def test_a_site_trains_on_its_own_records_under_their_own_names(deployment: Deployment, folder: Path) -> None:
    own = folder / "own.jsonl"
    rows = [{"sum": f"{a}+{a}=", "result": f" {2 * a}", "kind": "a"} for a in range(20)]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    site = deployment.site("client-002")
    head = site.read_text().partition("[data]")[0]
    fields = '[data.fields]\nprompt = "sum"\ncompletion = "result"\n'
    site.write_text(f'{head}[data]\ntrain = "{own}"\n{fields}')
    deployment.daemons["client-002"].terminate()
    deployment.start_site("client-002")
    deployment.wait_connected("client-002")

    found = deployment.wait_complete(deployment.start_run(tiny_config(folder, **{"rounds.total": 1})))

    examples = {update["client"]: update["num_examples"] for update in found["committed"][1]["updates"]}
    assert examples == {"client-000": 30, "client-001": 30, "client-002": 20}


def test_the_operator_watches_a_run_to_its_end_and_fetches_its_adapter(
    deployment: Deployment, folder: Path
) -> None:
    run = deployment.start_run(tiny_config(folder, **{"rounds.total": 6}))
    admin = ["admin", "--admin", str(deployment.settings.folder / "admin")]

    watched = CliRunner().invoke(app, [*admin, "runs", "watch", run, "--json"])
    exported = CliRunner().invoke(app, [*admin, "export", "peft", run, str(folder / "adapter")])

    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    rounds = [line["record"]["round"] for line in lines if line.get("event") == "round_committed"]
    assert rounds == list(range(7))[-len(rounds) :]
    assert lines[-1]["state"] == "completed"
    assert (watched.exit_code, exported.exit_code) == (0, 0), exported.output
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        path.name for path in (folder / "adapter").iterdir()
    }


def test_a_run_is_taken_back_and_ends_with_the_same_bits_from_what_sites_have_written_down(
    deployment: Deployment, folder: Path
) -> None:
    run = deployment.start_run(tiny_config(folder, **{"rounds.total": 4}))
    expected = deployment.wait_complete(run)["final_digest"]

    back = _admin(deployment, "runs", "rollback", run, "--round", "2")
    assert (back["state"], back["rounds"], back["final_digest"]) == ("paused", 2, "")
    _admin(deployment, "runs", "resume", run)

    assert deployment.wait_complete(run)["final_digest"] == expected
    entries = _admin(deployment, "audit-log")["entries"]
    assert [entry["what"] for entry in entries[-2:]] == ["roll back to round 2 of run", "resume run"]
    assert "rolled-back" in [event["kind"] for event in _admin(deployment, "logs", run)["events"]]
    measured = _admin(deployment, "metrics", run)["evaluations"]
    assert [row["round"] for row in measured if not row["group"]] == [0, 1, 2, 3, 4]


def test_a_configuration_is_tried_against_the_server(deployment: Deployment, folder: Path) -> None:
    file = folder / "try.toml"
    file.write_text(to_toml(tiny_config(folder)))
    assert _admin(deployment, "config", "validate", str(file))["test_records"] == 12
    refused = _invoke(deployment, "config", "validate", str(file), "--set", "data.test=/nowhere.jsonl")
    assert (refused.exit_code, "FEDFT-3001" in refused.output) == (1, True)
    running = deployment.start_run(tiny_config(folder, **{"rounds.total": 30}))
    early = _invoke(deployment, "runs", "rollback", running, "--round", "0")
    assert (early.exit_code, "FEDFT-6208" in early.output) == (1, True)
    _admin(deployment, "runs", "stop", running)


def _invoke(deployment: Deployment, *arguments: str) -> Result:
    folder = str(deployment.settings.folder / "admin")
    return CliRunner().invoke(app, ["admin", "--admin", folder, *arguments])


def _admin(deployment: Deployment, *arguments: str) -> dict[str, Any]:
    result = _invoke(deployment, *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found
