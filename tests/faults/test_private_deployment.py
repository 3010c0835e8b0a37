"""Private runs on real processes: killed at random moments, refused by policy, ended by the budget.

FEDFT_KILLS sets how often a site's processes are killed (default: few, for every change).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedft.wire.v1 import admin_pb2 as pb
from tests.deployment import Deployment
from tests.faults.test_deployment import done, kill_worker_or_daemon
from tests.federation import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployment"), pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("FEDFT_KILLS", "4"))
EPSILON, DELTA = 40.0, 1e-3
PRIVATE = {
    "privacy.mechanism": "example",
    "privacy.epsilon": 8.0,
    "privacy.delta": DELTA,
    "rounds.weighting": "uniform",
    "evaluation.every": 0,
    "rounds.deadline": 60.0,
    "rounds.min_replies": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def deployment(folder: Path) -> Iterator[Deployment]:
    with Deployment(folder / "deployment", budget=(EPSILON, DELTA)) as running:
        running.init_ledgers(tiny_config(folder))
        yield running.start()


def test_a_site_killed_at_random_moments_has_charged_whatever_it_has_released(
    deployment: Deployment, folder: Path
) -> None:
    rng, kills, runs = random.Random(5), 0, dict[str, dict[str, Any]]()
    while kills < KILLS:
        run = deployment.start_run(
            tiny_config(folder, **PRIVATE, **{"rounds.total": 6, "training.steps": 20})
        )
        while kills < KILLS and not done(deployment, run):
            time.sleep(rng.uniform(0.3, 1.5))
            kill_worker_or_daemon(deployment, rng)
            kills += 1
        runs[run] = deployment.wait_complete(run)

    charged = {
        (name, entry.body["run"], entry.body["round"])
        for name in deployment.names
        for entry in deployment.ledger(name).entries()
        if entry.body["kind"] == "charge"
    }
    released = {
        (update["client"], run, record["round"])
        for run, found in runs.items()
        for record in found["committed"][1:]
        for update in record["updates"]
        if update["status"] == "accepted"
    }
    assert released
    assert released <= charged


def test_what_the_policy_forbids_is_refused_and_shown_at_both_ends(
    deployment: Deployment, folder: Path
) -> None:
    policy = deployment.folder / "client-001" / "policy.toml"
    text = policy.read_text()
    policy.write_text(text.replace("epsilon = 40.0", "epsilon = 2.0"))
    try:
        settings = {**PRIVATE, "rounds.total": 1, "rounds.min_clients": 2}
        found = deployment.wait_complete(deployment.start_run(tiny_config(folder, **settings)))
    finally:
        policy.write_text(text)
    parts = {update["client"]: update for update in found["committed"][0]["updates"]}
    assert parts["client-001"]["code"] == "FEDFT-8303"
    assert "FEDFT-8303" in deployment.status("client-001").last_error
    assert [update["client"] for update in found["committed"][1]["updates"]] == ["client-000", "client-002"]


def test_a_run_without_privacy_gets_nothing_from_sites_that_require_it(
    deployment: Deployment, folder: Path
) -> None:
    before = [len(deployment.ledger(name).entries()) for name in deployment.names]
    run = deployment.start_run(tiny_config(folder, **{"rounds.total": 1}))
    deployment.wait(
        lambda: "FEDFT-8302" in deployment.run(run)["error"], 60, "the run does not say why it waits"
    )
    deployment.call("StopRun", pb.RunRequest(run=run))
    assert [len(deployment.ledger(name).entries()) for name in deployment.names] == before


def test_a_budget_that_is_spent_ends_a_sites_part(deployment: Deployment, folder: Path) -> None:
    policy = deployment.folder / "client-002" / "policy.toml"
    spent = deployment.ledger("client-002").claim("train", DELTA).epsilon
    policy.write_text(policy.read_text().replace("epsilon = 40.0", f"epsilon = {max(spent, 8.0) + 0.5:.3f}"))
    settings = {**PRIVATE, "rounds.total": 3, "rounds.min_clients": 2, "training.steps": 20}
    found = deployment.wait_complete(deployment.start_run(tiny_config(folder, **settings)))
    codes = [
        update["code"]
        for record in found["committed"][1:]
        for update in record["updates"]
        if update["client"] == "client-002" and update["status"] == "refused"
    ]
    assert codes == ["FEDFT-8207"]
    assert deployment.ledger("client-002").claim("train", DELTA).epsilon <= max(spent, 8.0) + 0.5
