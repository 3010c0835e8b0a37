"""A server whose disk is really full: a small tmpfs in a mount namespace of its own, which takes root."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from fedft.client.worker.answer import process_worker
from tests.deployment import FEDFT, Deployment, Process
from tests.federation import run_inline, tiny_config

ALLOWED = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0
MIB = 1 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("deployment"),
    pytest.mark.skipif(not ALLOWED, reason="a mount namespace takes root"),
]


class OnASmallDisk(Deployment):
    """The run store lies on a disk of 16 MiB, which only the server's process sees under its path."""

    def start_server(self) -> Process:
        store = self.settings.store_folder
        store.mkdir(exist_ok=True)
        script = f"""
            set -e
            mount --make-rprivate /
            mount -t tmpfs -o size=16m tmpfs {store}
            exec {FEDFT} server run {self.settings.folder}
        """
        self.server = Process(["unshare", "-m", "sh", "-c", script], self.folder / "server.log")
        self.processes.append(self.server)
        return self.server

    @property
    def ballast(self) -> Path:
        assert self.server is not None
        return Path(f"/proc/{self.server.popen.pid}/root{self.settings.store_folder}/ballast")

    def fill(self) -> None:
        with contextlib.suppress(OSError), self.ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))


def test_a_server_whose_disk_is_full_goes_on_by_itself_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, **{"data.partition.clients": 1, "rounds.total": 6, "evaluation.every": 0})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    process_worker.cache_clear()
    expected = run_inline(config)[1].final_digest
    with OnASmallDisk(tmp_path / "deployment", sites=1) as deployment:
        deployment.start()
        run = deployment.start_run(config)
        deployment.wait_round(run, 1)
        deployment.fill()
        deployment.wait(lambda: "FEDFT-6004" in deployment.call("Health")["status"], 60, "nobody notices")
        stuck = deployment.rounds(run)
        deployment.ballast.unlink()
        found = deployment.wait_complete(run)
    assert stuck < 6
    assert (found["rounds"], found["final_digest"]) == (6, expected)
