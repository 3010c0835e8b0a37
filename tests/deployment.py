"""A real deployment on loopback: server, sites and operator, each a process of its own, mutual TLS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import tomli_w

from fedft.client.daemon.status import Status, read_status
from fedft.client.site.config import load_site
from fedft.client.site.join import join_site
from fedft.client.site.ledger import init_ledger, open_ledger, site_fingerprint
from fedft.client.site.peers import pin_peers, read_peers
from fedft.client.site.pinning import pin, propose
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.identity.authority import Authority
from fedft.identity.enrolment import enroll
from fedft.identity.registry import Registry
from fedft.privacy.site.ledger import Ledger
from fedft.server.admin.answers import ANSWERS
from fedft.server.admin.client import AdminClient
from fedft.server.settings import ServerLimits, ServerSettings, initialise
from fedft.wire.v1 import admin_pb2 as pb

FEDFT = str(Path(sys.executable).parent / "fedft")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(condition: Callable[[], Any], seconds: float = 240.0, what: str = "") -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise TimeoutError(what or f"not within {seconds} s")


class Process:
    """A process whose output lies in a file; killed with everything that it started."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("a") as output:
            self.popen = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """Kill this one process, as the kernel would; what it started must cope by itself."""
        os.kill(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def terminate(self, seconds: float = 40.0) -> int:
        self.popen.terminate()
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.show_threads()
            raise TimeoutError(f"does not end: {self.log.read_text()[-8000:]}") from None

    def show_threads(self) -> None:
        """Make the process write into its log where every thread stands."""
        self.popen.send_signal(signal.SIGUSR1)
        time.sleep(1.0)

    def end(self) -> None:
        if self.alive:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


class Deployment:
    """``sites`` sites, each part i of the run's own records, under the names that a simulation gives."""

    def __init__(
        self,
        folder: Path,
        sites: int = 3,
        *,
        silence: float = 3.0,
        retry: float = 1.0,
        budget: tuple[float, float] | None = None,
    ) -> None:
        self.folder, self._budget = folder, budget
        link, admin, metrics = free_ports(3)
        self.settings = ServerSettings(
            hosts=("localhost", "127.0.0.1"),
            link=f"127.0.0.1:{link}",
            admin=f"127.0.0.1:{admin}",
            metrics=f"127.0.0.1:{metrics}",
            limits=ServerLimits(silence_seconds=silence, retry_seconds=retry),
            folder=folder / "server",
        )
        self.bundle = initialise(self.settings)
        self.names = [f"client-{index:03d}" for index in range(sites)]
        for index, name in enumerate(self.names):
            self.join(name, f"{index}/{sites}")
            self.enroll(name)
        self.processes: list[Process] = []
        self.server: Process | None = None
        self.daemons: dict[str, Process] = {}
        self.admin = AdminClient(self.settings.folder / "admin")

    # -- sites -----------------------------------------------------------------------------------------

    def site(self, name: str) -> Path:
        return self.folder / name / "site.toml"

    def join(self, name: str, partition: str) -> None:
        join_site(self.bundle, self.folder / name, name, partition=partition, budget=self._budget)
        table = tomllib.loads(self.site(name).read_text())
        table["data"]["sources"] = ["demo", str(self.folder.parent / "train.jsonl")]
        table["limits"] = {"answer_quantum_seconds": 0.1}
        self.site(name).write_text(tomli_w.dumps(table))

    def init_ledgers(self, config: RunConfig) -> None:
        """Bind every site's ledger to its part of a run's records, and pin how the run reads them."""
        for name in self.names:
            site = load_site(self.site(name))
            pin(self.site(name), propose(site, config).pinned)
            init_ledger(site, *site_fingerprint(site, config))

    def ledger(self, name: str) -> Ledger:
        """Open a site's ledger, which verifies it."""
        return open_ledger(load_site(self.site(name)))

    def enroll(self, name: str, *, days: int = 30) -> None:
        registry = Registry(self.settings.folder / "server.sqlite")
        request = (self.folder / name / "request.json").read_text()
        authority = Authority(self.settings.folder / "ca")
        _, certificate, _ = enroll(registry, authority, request, "client", days=days)
        registry.close()
        (self.folder / name / "certificate.pem").write_text(certificate)

    def status(self, name: str) -> Status:
        found, _ = read_status(self.folder / name / "state")
        return found or Status(name, "")

    # -- processes -------------------------------------------------------------------------------------

    def _start(self, log: str, *arguments: str, environment: dict[str, str] | None = None) -> Process:
        process = Process([FEDFT, *arguments], self.folder / log, environment)
        self.processes.append(process)
        return process

    def start_server(self) -> Process:
        self.server = self._start("server.log", "server", "run", str(self.settings.folder))
        return self.server

    def start_site(self, name: str, environment: dict[str, str] | None = None) -> Process:
        command = ("client", "run", "-c", str(self.site(name)))
        self.daemons[name] = self._start(f"{name}.log", *command, environment=environment)
        return self.daemons[name]

    def pin_peers(self) -> None:
        """Let every site take every other's key, from its enrolment request, for the other's own."""
        peers = read_peers(self.folder / name / "request.json" for name in self.names)
        for name in self.names:
            pin_peers(self.site(name), peers)

    def start_site_from(self, log: str, folder: Path) -> Process:
        """Start a daemon that is not one of the deployment's own."""
        return self._start(f"extra-{log}.log", "client", "run", "-c", str(folder / "site.toml"))

    def start(self) -> Deployment:
        self.start_server()
        for name in self.names:
            self.start_site(name)
        self.wait_connected(*self.names)
        return self

    def close(self) -> None:
        self.admin.close()
        for process in self.processes:
            process.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # -- operator --------------------------------------------------------------------------------------

    def call(self, method: str, request: Any = None) -> dict[str, Any]:
        request = getattr(pb, f"{method}Request")() if request is None else request
        return self.admin.ask(ANSWERS[method], method, request).model_dump(mode="json")

    def connected(self) -> set[str]:
        try:
            return set(self.call("Health")["connected"])
        except Exception:
            return set()

    def wait_connected(self, *names: str, seconds: float = 240.0) -> None:
        self.wait(lambda: set(names) <= self.connected(), seconds, f"{names} do not connect")

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait for a condition; when it does not come, fail with every log and every thread's place."""
        try:
            return wait_until(condition, seconds)
        except TimeoutError:
            for process in [self.server, *self.daemons.values()]:
                if process is not None and process.alive:
                    process.show_threads()
            raise TimeoutError(f"{what}: {self.logs()}") from None

    def start_run(self, config: RunConfig) -> str:
        return str(self.call("StartRun", pb.StartRunRequest(config_json=to_json(config)))["id"])

    def run(self, run: str) -> dict[str, Any]:
        return self.call("ShowRun", pb.RunRequest(run=run))

    def rounds(self, run: str) -> int:
        """The last committed round, -1 for none or when the server is away."""
        try:
            return max((record["round"] for record in self.run(run)["committed"]), default=-1)
        except Exception:
            return -1

    def wait_round(self, run: str, number: int, seconds: float = 400.0) -> None:
        self.wait(lambda: self.rounds(run) >= number, seconds, f"round {number}")

    def wait_state(self, run: str, *states: str, seconds: float = 600.0) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            try:
                found = self.run(run)
            except Exception:
                return None
            return found if found["state"] in states else None

        found: dict[str, Any] = self.wait(reached, seconds, f"{run} is not {states}")
        return found

    def wait_complete(self, run: str, seconds: float = 600.0) -> dict[str, Any]:
        found = self.wait_state(run, "completed", "failed", seconds=seconds)
        assert found["state"] == "completed", f"{found['error']}\n{self.logs()}"
        return found

    def logs(self) -> str:
        parts = [f"== {path.name}\n{path.read_text()[-6000:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(parts)
