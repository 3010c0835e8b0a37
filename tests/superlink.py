"""Flower's own deployment on loopback: a SuperLink and SuperNodes with TLS and authenticated nodes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedft.identity.authority import Authority
from tests.deployment import free_ports

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


class SuperLink:
    """A SuperLink and its SuperNodes from entering to leaving the context; ``run`` is ``flwr run``."""

    def __init__(self, folder: Path, environment: dict[str, str], nodes: int) -> None:
        self._folder, self._nodes = folder, nodes
        self._environment = {**environment, "PATH": f"{BIN}:{os.environ['PATH']}"}
        self._environment["FLWR_HOME"] = str(folder / "flwr")
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SuperLink:
        (self._folder / "flwr").mkdir(parents=True)
        ca, certificate, key = self._certify()
        link, *ports = free_ports(1 + self._nodes)
        address = f"127.0.0.1:{link}"
        command = ["flower-superlink", "--ssl-ca-certfile", ca, "--ssl-certfile", certificate]
        command += ["--ssl-keyfile", key, "--enable-supernode-auth", "--host", "127.0.0.1"]
        command += ["--port", str(link), "--database", str(self._folder / "superlink.db")]
        self._start("superlink", command)
        wait_for_port(link)
        settings = f'[superlink]\ndefault = "test"\n[superlink.test]\naddress = "{address}"\n'
        (self._folder / "flwr" / "config.toml").write_text(f'{settings}root-certificates = "{ca}"\n')
        for index, port in enumerate(ports):
            node = self._new_key(f"node-{index}")
            self._flwr("supernode", "register", f"{node}.pub", "test", "--name", f"site-{index}")
            command = ["flower-supernode", "--root-certificates", ca, "--superlink", address]
            command += ["--auth-supernode-private-key", node, "--host", "127.0.0.1", "--port", str(port)]
            command += ["--node-config", f"partition-id={index} num-partitions={self._nodes}"]
            self._start(f"supernode-{index}", command)
        return self

    def __exit__(self, *_error: object) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, settings: str) -> subprocess.CompletedProcess[str]:
        """Run the repository's app to its end with this run configuration."""
        return self._flwr("run", ".", "test", "--stream", "-c", settings)

    def logs(self) -> str:
        """Return the ends of all processes' output."""
        files = sorted(self._folder.glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in files)

    def _flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["flwr", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=arguments[0] != "run",
        )

    def _start(self, name: str, command: list[str]) -> None:
        with (self._folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)

    def _certify(self) -> tuple[str, str, str]:
        authority = Authority.create(self._folder / "ca", "test")
        certificate, key = self._folder / "server.crt", self._folder / "server.key"
        authority.renew_server(certificate, key, "test", ["localhost", "127.0.0.1"])
        return str(authority.certificate_path), str(certificate), str(key)

    def _new_key(self, name: str) -> str:
        key, path = ec.generate_private_key(ec.SECP384R1()), self._folder / name
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        path.with_suffix(".pub").write_bytes(public)
        return str(path)


def wait_for_port(port: int) -> None:
    """Wait until something listens on a port of this machine."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")
