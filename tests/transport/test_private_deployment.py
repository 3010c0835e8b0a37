"""A private run over real daemons: each site with its own policy and ledger, one with a small budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedft.privacy.site.ledger import Ledger
from tests.cli.run import fedft
from tests.deployment import Deployment
from tests.federation import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployment"), pytest.mark.timeout(900)]

RUN = {
    "privacy.mechanism": "example",
    "privacy.epsilon": 5.0,
    "privacy.delta": 1e-3,
    "rounds.weighting": "uniform",
    "rounds.min_clients": 1,
    "rounds.min_replies": 1,
    "data.partition.clients": 2,
    "evaluation.every": 0,
}
FILES = """
[privacy]
policy = "policy.toml"
ledger = "ledger.sqlite"
dataset = "notes"
"""


def give_policy(deployment: Deployment, name: str, epsilon: float, run: Path) -> None:
    """Write policy and ledger of a site as its operator would."""
    site = deployment.site(name)
    text = fedft("privacy", "policy").stdout
    text = text.replace("epsilon = 8.0", f"epsilon = {epsilon}").replace("delta = 1e-6", "delta = 1e-3")
    text = text.replace("identities = []", 'identities = ["localhost"]')
    site.with_name("policy.toml").write_text(text)
    site.write_text(site.read_text() + FILES)
    pinned = fedft("client", "pin", run, "-c", site, "--yes", "--set", "data.partition.clients=2")
    assert pinned.exit_code == 0, pinned.output
    made = fedft("privacy", "ledger", "init", "-c", site, "--run", run, "--set", "data.partition.clients=2")
    assert made.exit_code == 0, made.output


def test_each_site_spends_its_own_budget(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **RUN)
    with Deployment(tmp_path / "deployment", sites=2) as deployment:
        give_policy(deployment, "client-000", 8.0, tmp_path / "run.toml")
        give_policy(deployment, "client-001", 5.0, tmp_path / "run.toml")
        deployment.start()
        first = deployment.wait_complete(deployment.start_run(config))
        # The same again: the large budget covers a part of it, the small one nothing.
        second = deployment.wait_state(deployment.start_run(config), "completed", "failed")

        statuses = {
            (update["client"], record["round"]): update["code"] or update["status"]
            for record in second["committed"]
            for update in record["updates"]
            if record["round"]
        }
        assert statuses["client-001", 1] == "FEDFT-8207"
        assert ("client-001", 2) not in statuses
        assert statuses["client-000", 1] == "accepted"
        for name, budget in (("client-000", 8.0), ("client-001", 5.0)):
            ledger = Ledger(deployment.site(name).parent / "state" / "ledger.sqlite")
            rounds = [entry.body["round"] for entry in ledger.entries() if entry.body["kind"] == "charge"]
            assert rounds[:3] == [1, 2, 3]
            assert 4.9 < ledger.claim("notes", 1e-3).epsilon <= budget
        admin = deployment.settings.folder / "admin"
        shown = fedft("admin", "--admin", admin, "budget", second["id"], "--json")
        assert shown.exit_code == 1
        spent = {row["client"]: row["spent_in"] for row in json.loads(shown.stdout)["privacy"]}
        assert spent["client-001"] == 1
        shown = fedft("admin", "--admin", admin, "budget", first["id"])
        assert shown.exit_code == 0
        assert "covers it so far" in shown.stdout
