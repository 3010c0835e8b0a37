"""A deployment in which everything can go wrong: small disks, lines that are cut or slow, clocks that jump.

It needs a mount namespace of its own, in which it mounts a tmpfs for the server's store and each site's
state.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import tomli_w

from tests.deployment import Deployment, Process
from tests.soak.schedule import Fault
from tests.transport.proxy import Proxy

_MIB = 1 << 20


class World(Deployment):
    """``sites`` sites behind a proxy each, and a server, all under clocks that can be set."""

    def __init__(self, folder: Path, sites: int, *, budget: tuple[float, float] | None = None) -> None:
        super().__init__(folder, sites, budget=budget)
        self.proxies = [Proxy(int(self.settings.link.rpartition(":")[2])) for _ in self.names]
        for name, proxy in zip(self.names, self.proxies, strict=True):
            table = tomllib.loads(self.site(name).read_text())
            table["server"]["address"] = f"localhost:{proxy.port}"
            table["limits"]["min_free_bytes"] = 4 * _MIB
            self.site(name).write_text(tomli_w.dumps(table))
        self.disks = [self.settings.store_folder, *(folder / name / "state" for name in self.names)]
        for disk in self.disks:
            disk.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)], check=True)
        for who in ("server", *self.names):
            self._clock(who).write_text("0")

    def _clock(self, who: str) -> Path:
        return self.folder / f"{who}.clock"

    def _start(self, log: str, *arguments: str, environment: dict[str, str] | None = None) -> Process:
        who = log.removesuffix(".log")
        command = [sys.executable, "-m", "tests.soak.jumping_clock", str(self._clock(who)), *arguments]
        process = Process(command, self.folder / log, environment)
        self.processes.append(process)
        return process

    def committed(self, run: str) -> int:
        """The last committed round, read from the store without asking the server; -1 for none."""
        path = self.settings.store_folder / "fedft.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            found = database.execute("SELECT max(round) FROM rounds WHERE run_id = ?", (run,)).fetchone()[0]
        return -1 if found is None else int(found)

    def processes_now(self) -> dict[str, list[int]]:
        """Process ids by role."""
        server = [self.server.popen.pid] if self.server is not None and self.server.alive else []
        daemons = [daemon.popen.pid for daemon in self.daemons.values() if daemon.alive]
        workers = [pid for name in self.names if (pid := self.status(name).worker_pid)]
        return {"server": server, "daemon": daemons, "worker": workers}

    def strike(self, fault: Fault) -> None:
        """Let a fault happen, and heal it; returns when everything that runs by itself runs again."""
        name, proxy = self.names[fault.site], self.proxies[fault.site]
        match fault.kind:
            case "kill-server":
                assert self.server is not None
                self.server.kill()
                self.start_server()
            case "kill-daemon":
                self.daemons[name].kill()
                self.start_site(name)
            case "kill-worker":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.status(name).worker_pid or 2**22, signal.SIGKILL)
            case "cut":
                proxy.refusing = True
                proxy.cut()
                time.sleep(fault.seconds)
                proxy.refusing = False
            case "slow":
                proxy.delay = 0.3
                time.sleep(fault.seconds)
                proxy.delay = 0.0
            case "full-server" | "full-site":
                self._full(self.disks[0 if fault.kind == "full-server" else 1 + fault.site], fault.seconds)
            case "clock-server" | "clock-site":
                clock = self._clock("server" if fault.kind == "clock-server" else name)
                clock.write_text(str(fault.jump))
                time.sleep(fault.seconds)
                clock.write_text("0")
            case _:
                raise ValueError(f"no fault is called {fault.kind}")

    def _full(self, disk: Path, seconds: float) -> None:
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(seconds)
        ballast.unlink()

    def revive(self) -> list[str]:
        """Start what has ended by itself, as systemd does; return what it was."""
        ended = []
        if self.server is not None and not self.server.alive:
            ended.append("server")
            self.start_server()
        for name, daemon in list(self.daemons.items()):
            if not daemon.alive:
                ended.append(name)
                self.start_site(name)
        return ended
