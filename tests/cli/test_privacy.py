"""``fedft privacy``: plan, ledger, audit, policy, and what the client's check says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedft.client.daemon.preflight import _ledger as check_ledger
from fedft.client.daemon.preflight import _policy as check_policy
from fedft.client.site.config import load_site
from fedft.client.site.privacy_plan import plan_run
from fedft.errors import FedftError
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.accounting.planning import calibrate
from fedft.privacy.audit import AuditReport, Finding
from fedft.privacy.site.ledger import Ledger
from fedft.privacy.site.policy import load_policy
from fedft.training.private_schedule import client_event, private_rounds
from tests.cli.run import fedft as run
from tests.federation import sums, tiny_config

PRIVATE = [
    "--set",
    "rounds.weighting=uniform",
    "--set",
    "privacy.mechanism=example",
    "--set",
    "privacy.delta=1e-3",
]
SITE = """
name = "site-a"
[server]
address = "hub.example.org:7443"
[data]
train = "own.jsonl"
[privacy]
policy = "policy.toml"
ledger = "ledger.sqlite"
dataset = "notes"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    sums(tmp_path / "own.jsonl", 60, 500)
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "policy.toml").write_text(run("privacy", "policy").stdout)
    return tmp_path / "site.toml"


def ledger(*arguments: str, site: Path, code: int = 0) -> dict[str, Any]:
    result = run("privacy", "ledger", *arguments, "-c", str(site), "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else {}


# -- plan ------------------------------------------------------------------------------------------------


def test_the_plan_is_what_the_clients_will_calibrate(tmp_path: Path) -> None:
    tiny_config(tmp_path)
    picture = tmp_path / "plan.png"
    result = run(
        "privacy", "plan", str(tmp_path / "run.toml"), *PRIVATE, "--epsilon", "2", "--epsilon", "5",
        "--batch", "4", "--batch", "8", "--plot", str(picture), "--json",
    )  # fmt: skip
    found = json.loads(result.stdout)

    assert (found["examples"], found["delta"]) == (30, 1e-3)
    assert found["parameters"] == 14 * 4**2
    assert [(row["expected_batch"], row["epsilon"]) for row in found["plan"]] == [
        (4, 2),
        (4, 5),
        (8, 2),
        (8, 5),
    ]
    assert found["plan"][1]["noise_multiplier"] == calibrate(Budget(5, 1e-3), PrivacyEvent(1.0, 4 / 30, 6))
    assert found["plan"][1]["steps"] == 6
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_plan_for_a_site_counts_what_it_has_spent(tmp_path: Path, site: Path) -> None:
    tiny_config(tmp_path)
    ledger("init", site=site)
    book = Ledger(tmp_path / "state" / "ledger.sqlite")
    arguments = ["privacy", "plan", str(tmp_path / "run.toml"), *PRIVATE, "--epsilon", "5", "--batch", "4"]
    options = ["--parameters", "9", "--site", str(site), "--json"]
    before = json.loads(run(*arguments, *options).stdout)
    book.charge("notes", PrivacyEvent(1.0, 0.1, 20), Budget(10, 1e-3), run="old", round_number=1)
    after = json.loads(run(*arguments, *options).stdout)

    assert before["examples"] == 60
    assert before["spent_epsilon"] == 0 < after["spent_epsilon"]
    assert after["plan"][0]["noise_multiplier"] > before["plan"][0]["noise_multiplier"]


def test_the_plan_of_a_run_with_sketches_leaves_room_for_them(tmp_path: Path) -> None:
    overrides = {"adapter.initialiser": "dp-sketch", "adapter.samples": 10, "rounds.weighting": "uniform"}
    overrides |= {"privacy.mechanism": "example", "privacy.epsilon": 5.0, "privacy.delta": 1e-3}
    config = tiny_config(tmp_path, **overrides)
    (row,) = plan_run(config, epsilons=[5.0], batches=[4], parameters=9).rows

    assert row.noise_multiplier == private_rounds(config, 30).noise_multiplier


def test_the_plan_of_client_level_privacy_is_by_cohort(tmp_path: Path) -> None:
    overrides = {"privacy.mechanism": "client", "rounds.weighting": "uniform", "privacy.epsilon": 5.0}
    config = tiny_config(tmp_path, **overrides, **{"privacy.delta": 1e-3, "privacy.client_rate": 0.5})
    found = plan_run(config, epsilons=[5.0], parameters=9, examples=10)

    assert [row.expected_batch for row in found.rows] == [2, 5, 10]
    event = client_event(config)
    assert {row.steps for row in found.rows} == {config.rounds.total}
    assert found.rows[1].noise_multiplier == pytest.approx(event.noise_multiplier, rel=1e-9)


def test_a_plan_for_people(tmp_path: Path) -> None:
    tiny_config(tmp_path)
    result = run("privacy", "plan", str(tmp_path / "run.toml"), *PRIVATE, "--batch", "4", "--parameters", "9")

    assert result.exit_code == 0
    assert "30 examples, 9 parameters" in result.stdout
    assert "noise multiplier" in result.stdout


def test_a_delta_that_means_nothing_is_an_error(tmp_path: Path) -> None:
    tiny_config(tmp_path)
    result = run(
        "privacy", "plan", str(tmp_path / "run.toml"), *PRIVATE[:-1], "privacy.delta=0.1", "--parameters", "9"
    )

    assert result.exit_code == 1
    assert "FEDFT-8001" in result.stderr


# -- ledger ----------------------------------------------------------------------------------------------


def test_a_site_that_names_no_ledger_has_none(tmp_path: Path, site: Path) -> None:
    site.write_text(SITE.replace('ledger = "ledger.sqlite"\n', ""))
    for action in ("init", "show", "verify"):
        result = run("privacy", "ledger", action, "-c", str(site))
        assert result.exit_code == 1
        assert "FEDFT-8201" in result.stderr


def test_a_site_with_a_part_of_a_runs_records_must_name_the_run(tmp_path: Path, site: Path) -> None:
    site.write_text(SITE.replace('train = "own.jsonl"', "partition = 1\npartitions = 3"))
    result = run("privacy", "ledger", "init", "-c", str(site))

    assert result.exit_code == 1
    assert "FEDFT-7050" in result.stderr
    assert not (tmp_path / "state" / "ledger.sqlite").exists()


def test_a_ledger_from_its_making_to_its_export(tmp_path: Path, site: Path) -> None:
    made = ledger("init", site=site)
    assert (made["dataset"], made["records"]) == ("notes", 60)
    assert ledger("init", site=site) == made
    book = Ledger(tmp_path / "state" / "ledger.sqlite")
    for number in (1, 2):
        book.charge("notes", PrivacyEvent(2.0, 0.1, 5), Budget(8, 1e-6), run="run-7", round_number=number)

    (shown,) = ledger("show", site=site)["datasets"]
    assert shown["epsilon"] == book.claim("notes", 1e-6).epsilon > 0
    assert shown["budget"] == {"epsilon": 8.0, "delta": 1e-6}
    assert [(r["run"], r["charges"], r["last_round"]) for r in shown["runs"]] == [("run-7", 2, 2)]
    assert "run-7" in run("privacy", "ledger", "show", "-c", str(site)).stdout
    assert ledger("verify", site=site)["entries"] == 4

    exported = tmp_path / "export.json"
    assert run("privacy", "ledger", "export", "-c", str(site), "-o", str(exported)).exit_code == 0
    assert run("privacy", "ledger", "verify", "--export", str(exported)).exit_code == 0
    exported.write_text(exported.read_text().replace("run-7", "run-8", 1))
    altered = run("privacy", "ledger", "verify", "--export", str(exported))
    assert altered.exit_code == 1
    assert "FEDFT-8203" in altered.stderr


def test_changed_data_need_the_operators_word(tmp_path: Path, site: Path) -> None:
    ledger("init", site=site)
    sums(tmp_path / "own.jsonl", 61, 500)

    ledger("init", site=site, code=1)
    with pytest.raises(FedftError, match="8206"):
        check_ledger(load_site(site))
    assert ledger("rebind", site=site)["records"] == 61
    assert "epsilon 0" in check_ledger(load_site(site))


def test_the_clients_check_knows_policy_and_ledger(tmp_path: Path, site: Path) -> None:
    with pytest.raises(FedftError, match="8201"):
        check_ledger(load_site(site))
    (tmp_path / "state").mkdir()
    Ledger.create(tmp_path / "state" / "ledger.sqlite")
    with pytest.raises(FedftError, match="8205"):
        check_ledger(load_site(site))
    assert check_policy(load_site(site)) == "notes: epsilon 8 at delta 1e-06"


def test_a_site_without_a_ledger_is_told_how_to_have_one(site: Path) -> None:
    site.write_text(site.read_text().replace('ledger = "ledger.sqlite"', ""))
    result = run("privacy", "ledger", "init", "-c", str(site))

    assert result.exit_code == 1
    assert "FEDFT-8201" in result.stderr


def test_a_ledger_that_was_tampered_with_fails_the_verification(tmp_path: Path, site: Path) -> None:
    ledger("init", site=site)
    (tmp_path / "state" / "ledger.sqlite.head").write_bytes(b"9 " + b"0" * 64 + b"\n")

    ledger("verify", site=site, code=1)


# -- audit and policy ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("measured", "code"), [(0.5, 0), (2.0, 1)])
def test_the_audits_verdict_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, measured: float, code: int
) -> None:
    import fedft.privacy.audit as audit

    told: list[str] = []

    def attack(**options: Any) -> AuditReport:
        options["begun"]("noise law")
        told.append("noise law")
        return AuditReport((Finding("noise law", "variance ratio", measured, 1.0),), 3.0)

    monkeypatch.setattr(audit, "audit", attack)
    result = run("privacy", "audit", "--json")

    assert result.exit_code == code
    assert json.loads(result.stdout)["findings"][0]["passed"] is (code == 0)
    assert told
    assert run("privacy", "audit").exit_code == code


def test_the_example_policy_is_one(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(run("privacy", "policy").stdout)

    assert load_policy(path).budget("notes") == Budget(8.0, 1e-6)
