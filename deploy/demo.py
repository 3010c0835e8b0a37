"""A federation of real processes on this machine: server, three sites and an operator, mutual TLS.

    python deploy/demo.py [--rounds 3] [--folder FOLDER] [--keep] [--set KEY=VALUE ...]

Runs the demo with differential privacy and ternary updates to its end and shows what each site has spent;
then the sites allow a run without privacy, whose digest is compared with that of the same configuration as a
simulation. Exits 0 when the two are equal, 1 when they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

FEDFT = str(Path(sys.executable).parent / "fedft")
SITES = 3
EPSILON, DELTA = 8.0, 1e-4
PRIVATE = [
    "privacy.mechanism=example",
    f"privacy.epsilon={EPSILON}",
    f"privacy.delta={DELTA}",
    "rounds.weighting=uniform",
]


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=0, help="fewer rounds than the demo's forty, e.g. 3")
    parser.add_argument("--folder", type=Path, default=None, help="a new folder; without it, a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the processes running until Ctrl-C")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the run")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ExitStack() as stack:
        folder = chosen.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedft-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        shorter = [f"rounds.total={chosen.rounds}"] if chosen.rounds else []
        overrides = [f"data.partition.clients={SITES}", *shorter, *chosen.set]
        return demonstrate(folder, overrides, stack, keep=chosen.keep)


def demonstrate(folder: Path, overrides: list[str], stack: ExitStack, *, keep: bool) -> int:
    """Set everything up, run, compare; the processes end with ``stack``."""
    link, admin, metrics = free_ports(3)
    addresses = ["--link", f"127.0.0.1:{link}", "--admin", f"127.0.0.1:{admin}"]
    run(folder, "server", "init", "server", *addresses, "--metrics", f"127.0.0.1:{metrics}")
    background(folder, stack, "server.log", "server", "run", "server")
    # The names that a simulation gives its clients: their randomness derives from the name.
    names = [f"client-{index:03d}" for index in range(SITES)]
    for index, name in enumerate(names):
        budget = ["--epsilon", str(EPSILON), "--delta", str(DELTA)]
        part = ["--partition", f"{index}/{SITES}"]
        run(folder, "client", "join", "server/join.json", "--name", name, *part, *budget)
    wait_for_port(admin)
    operator = ["admin", "--admin", "server/admin"]
    run(folder, *operator, "clients", "enroll", *(f"{name}/request.json" for name in names))
    settings = [part for override in overrides for part in ("--set", override)]
    for name in names:
        # A site with records of its own needs no --run: here each has a part of the run's.
        site = ["--config", f"{name}/site.toml"]
        run(folder, "privacy", "ledger", "init", *site, "--run", "demo", *settings)
        background(folder, stack, f"{name}.log", "client", "run", *site)
    private = [part for override in PRIVATE for part in ("--set", override)]
    run(folder, *operator, "runs", "start", "demo", *settings, *private, "--watch")
    run(folder, *operator, "budget", "latest")
    for name in names:
        run(folder, "privacy", "ledger", "verify", "--config", f"{name}/site.toml")
        allow_without_privacy(folder / name / "policy.toml")
    run(folder, *operator, "runs", "start", "demo", *settings, "--watch")
    deployed = facts(folder, *operator, "runs", "show", "latest")["final_digest"]
    run(folder, "simulate", "demo", *settings, "--store", "simulation", "--quiet")
    expected = facts(folder, "runs", "show", "latest", "--store", "simulation")["final_digest"]
    print(f"\ndeployed    {deployed}\nsimulated   {expected}")
    same = bool(deployed) and deployed == expected
    print("the same bits" if same else "NOT the same")
    if keep:
        print(f"the processes go on in {folder} until Ctrl-C")
        with suppress(KeyboardInterrupt):
            signal.pause()
    return 0 if same else 1


def allow_without_privacy(policy: Path) -> None:
    """Change a site's policy as its operator would; the daemon reads it at every instruction."""
    print(f"\n$ sed -i 's/private = true/private = false/' {policy.parent.name}/{policy.name}", flush=True)
    policy.write_text(policy.read_text().replace("private = true", "private = false"))


def run(folder: Path, *arguments: str) -> None:
    """Show a command and run it to its end."""
    print(f"\n$ fedft {shlex.join(arguments)}", flush=True)
    subprocess.run([FEDFT, *arguments], cwd=folder, check=True)


def facts(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a command for its JSON."""
    output = subprocess.run(
        [FEDFT, *arguments, "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(output.stdout)
    return found


def background(folder: Path, stack: ExitStack, log: str, *arguments: str) -> None:
    """Show a command and leave it running, its output in a file."""
    print(f"\n$ fedft {shlex.join(arguments)} > {log} &", flush=True)
    output = stack.enter_context((folder / log).open("w"))
    process = subprocess.Popen([FEDFT, *arguments], cwd=folder, stdout=output, stderr=output)
    stack.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Find ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for_port(port: int) -> None:
    """Wait until something listens there."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


if __name__ == "__main__":
    raise SystemExit(main())
