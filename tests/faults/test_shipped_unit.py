"""A site's daemon under the restrictions of the shipped systemd unit.

systemd is not needed: a mount namespace of its own (``unshare -m``, which takes root) makes everything
read-only but the state folder, the cache folder and a private TMPDIR, as ProtectSystem=strict, ProtectHome,
ReadOnlyPaths, StateDirectory, CacheDirectory and PrivateTmp do. Root does not overrule a read-only mount.
"""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from fedft.wire.v1 import admin_pb2 as pb
from tests.deployment import FEDFT, Deployment, Process
from tests.federation import tiny_config

UNIT = Path(__file__).parents[2] / "deploy" / "fedft-client.service"
SITE = "client-000"
ALLOWED = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("deployment"),
    pytest.mark.skipif(not ALLOWED, reason="a mount namespace takes root"),
]


class Restricted(Deployment):
    """One of its sites lies in a folder that may only be read, with state and cache elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, sites=2, budget=(40.0, 1e-3))
        self.state, self.cache = folder / "var" / "state", folder / "var" / "cache"
        self.scratch, self.home = folder / "scratch", folder / "home"
        for each in (self.state, self.cache, self.scratch, self.home):
            each.mkdir(parents=True)
        site = self.site(SITE)
        site.write_text(f'state = "{self.state}"\ncache = "{self.cache}"\n{site.read_text()}')

    def command(self, *arguments: str) -> list[str]:
        script = f"""
            set -e
            mount --make-rprivate /
            for each in {self.state} {self.cache}; do mount --bind $each $each; done
            mount -t tmpfs tmpfs {self.scratch}
            for each in / /tmp /root /home; do
                if mountpoint -q $each; then mount -o remount,ro,bind $each; fi
            done
            exec env -u XDG_DATA_HOME -u XDG_CACHE_HOME HOME={self.home} TMPDIR={self.scratch} \
                {shlex.join([FEDFT, *arguments])}
        """
        return ["unshare", "-m", "sh", "-c", script]

    def start_site(self, name: str, environment: dict[str, str] | None = None) -> Process:
        if name != SITE:
            return super().start_site(name, environment)
        command = self.command("client", "run", "-c", str(self.site(name)))
        process = Process(command, self.folder / f"{name}.log")
        self.processes.append(process)
        self.daemons[name] = process
        return process

    def check(self) -> dict[str, str]:
        command = self.command("client", "check", "-c", str(self.site(SITE)), "--json")
        output = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        return {
            item["name"]: item["found"] for item in json.loads(output.stdout)["checks"] if not item["good"]
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unit")


@pytest.fixture(scope="module")
def deployment(folder: Path) -> Iterator[Restricted]:
    with Restricted(folder / "deployment") as running:
        running.init_ledgers(tiny_config(folder, **{"data.partition.clients": 2}))
        running.start()
        yield running


def test_the_unit_restricts_what_the_test_restricts() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert (service["ProtectSystem"], service["ProtectHome"]) == ("strict", "read-only")
    assert service["ReadOnlyPaths"] == "/etc/fedft"
    assert service["StateDirectory"] == service["CacheDirectory"] == "fedft"
    assert "--config /etc/fedft/site.toml" in service["ExecStart"]


def test_a_restricted_site_trains_is_charged_resumes_and_keeps_its_residual(
    deployment: Restricted, folder: Path
) -> None:
    assert deployment.check() == {}
    settings = {
        "privacy.mechanism": "example",
        "privacy.epsilon": 8.0,
        "privacy.delta": 1e-3,
        "rounds.weighting": "uniform",
        "rounds.total": 4,
        "evaluation.every": 0,
        "codec.name": "ternary",
        "data.partition.clients": 2,
    }
    run = deployment.start_run(tiny_config(folder, **settings))
    deployment.wait_round(run, 1)
    deployment.call("PauseRun", pb.RunRequest(run=run))
    rested = deployment.wait_state(run, "paused")["rounds"]
    # The pause may come while the site is at the round after, which is then charged and not committed.
    deployment.wait(lambda: _pending(deployment, run) == _charged(deployment), 60, "the site is not at rest")
    assert rested <= _charged(deployment) <= rested + 1
    deployment.daemons[SITE].terminate()
    deployment.start_site(SITE)
    deployment.wait_connected(SITE)
    deployment.call("ResumeRun", pb.RunRequest(run=run))
    found = deployment.wait_complete(run)

    parts = [update for record in found["committed"] for update in record["updates"]]
    assert [update for update in parts if update["status"] != "accepted"] == []
    assert _pending(deployment, run) == 4
    assert _charged(deployment) in (4, 5)
    assert list(deployment.home.iterdir()) == []
    assert not (deployment.folder / SITE / "state").exists()


def test_the_check_finds_a_ledger_that_may_only_be_read(deployment: Restricted) -> None:
    """What every round would be refused for, with FEDFT-8208."""
    site = deployment.site(SITE)
    text = site.read_text()
    ledger = deployment.state / "ledger.sqlite"
    for path in (ledger, ledger.with_name("ledger.sqlite.head")):
        (site.parent / path.name).write_bytes(path.read_bytes())
    site.write_text(text.replace('"ledger.sqlite"', f'"{site.parent / "ledger.sqlite"}"'))
    try:
        failed = deployment.check()
    finally:
        site.write_text(text)
    assert failed.keys() == {"ledger"}
    assert "FEDFT-8208" in failed["ledger"]


def _charged(deployment: Restricted) -> int:
    """How many rounds the site's ledger has been charged for."""
    return sum(entry.body["kind"] == "charge" for entry in deployment.ledger(SITE).entries())


def _pending(deployment: Restricted, run: str) -> int:
    """The round of the update whose residual the site keeps."""
    [path] = (deployment.state / "residuals" / run).glob(f"{SITE}*.safetensors")
    with safe_open(path, "numpy") as file:
        return int(json.loads(file.metadata()["fedft"])["pending"]["round"])
