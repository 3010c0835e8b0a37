"""One federation over every carrier: the same code, the same bits.

The demo's configuration with fewer and shorter rounds, so that the suite stays short.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedft.client.worker.answer import process_worker
from fedft.config import load_config
from fedft.simulation.simulate import simulate
from fedft.store import RunStore
from tests.deployment import Deployment, free_ports
from tests.superlink import SuperLink, wait_for_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
BIN126 = ROOT / ".venv-flwr126" / "bin"
CLIENTS = 2
SHORT = {
    "data.partition.clients": CLIENTS,
    "rounds.total": 2,
    "training.steps": 3,
    "data.max_train": 400,
    "data.max_test": 20,
    "adapter.samples": 16,
    "evaluation.before": False,
}


def _settings(store: Path, **more: object) -> dict[str, object]:
    return {**SHORT, "store.path": str(store), **more}


def _flower_settings(store: Path) -> str:
    settings = _settings(store, **{"simulation.backend": "ray"})
    return " ".join(f"{key}={_toml(value)}" for key, value in settings.items())


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _environment(tmp_path: Path, binaries: Path) -> dict[str, str]:
    # A simulation in this process has left Ray's settings behind, which another environment must not see.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("RAY_")}
    return {
        **inherited,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path / "flwr"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }


def _simulate(backend: str) -> Callable[[Path], str]:
    def carrier(tmp_path: Path) -> str:
        store = tmp_path / "store"
        config = load_config("demo", _settings(store, **{"simulation.backend": backend}))
        return simulate(config, store=RunStore(store)).final_digest

    return carrier


def _flwr_run(tmp_path: Path) -> str:
    store, environment = tmp_path / "store", _environment(tmp_path, BIN)
    with _Superlink(tmp_path, environment) as address:
        home = tmp_path / "flwr"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(f'[superlink]\ndefault = "test"\n[superlink.test]\n{address}')
        command = ["flwr", "run", ".", "test", "--stream", "-c", _flower_settings(store)]
        command += ["--federation-config", f"num-supernodes={CLIENTS} client-resources-num-cpus=1"]
        output = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
    return _digest(store, output)


class _Superlink:
    """A SuperLink with simulation on ports of its own, killed at the end."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment

    def __enter__(self) -> str:
        ports = free_ports(2)
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(ports[0])]
        command += ["--control-api-address", f"127.0.0.1:{ports[1]}"]
        self._log = (self._folder / "superlink.log").open("w")
        self._process = subprocess.Popen(
            command, env=self._environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        wait_for_port(ports[0])
        return f'address = "127.0.0.1:{ports[0]}"\ninsecure = true\n'

    def __exit__(self, *_error: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._log.close()


def _supernodes(tmp_path: Path) -> str:
    store, environment = tmp_path / "store", _environment(tmp_path, BIN)
    with SuperLink(tmp_path / "superlink", environment, CLIENTS) as superlink:
        output = superlink.run(_flower_settings(store))
        return _digest(store, output, superlink.logs())


def _grpc_link(tmp_path: Path) -> str:
    config = load_config("demo", _settings(tmp_path / "store"))
    with Deployment(tmp_path / "deployment", CLIENTS) as deployment:
        run = deployment.start().start_run(config)
        return str(deployment.wait_complete(run)["final_digest"])


def _flower_simulation(tmp_path: Path) -> str:
    if not (BIN126 / "flower-simulation").exists():
        pytest.skip(f"no Flower 1.26 in {BIN126}: run make flwr126")
    store = tmp_path / "store"
    command = [str(BIN126 / "flower-simulation"), "--app", ".", "--num-supernodes", str(CLIENTS)]
    command += ["--run-config", _flower_settings(store)]
    output = subprocess.run(
        command,
        cwd=ROOT,
        env=_environment(tmp_path, BIN126),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return _digest(store, output)


def _digest(store: Path, output: subprocess.CompletedProcess[str], logs: str = "") -> str:
    if not (store / "fedft.sqlite").exists():
        pytest.fail(f"no run was made:\n{output.stdout[-3000:]}\n{output.stderr[-3000:]}\n{logs}")
    run = RunStore(store).run("latest")
    shown = f"{run.error}\n{output.stdout[-3000:]}\n{output.stderr[-3000:]}\n{logs}"
    assert run.status == "completed", shown
    return run.final_digest


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("inline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        process_worker.cache_clear()
        yield _simulate("inline")(folder)


@pytest.mark.parametrize(
    "carrier",
    [_simulate("ray"), _flwr_run, _flower_simulation, _supernodes, _grpc_link],
    ids=["fedft simulate", "flwr run", "flower-simulation", "SuperLink and SuperNodes", "gRPC link"],
)
def test_every_carrier_ends_with_the_same_digest(
    carrier: Callable[[Path], str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert carrier(tmp_path) == expected
