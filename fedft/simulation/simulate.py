"""A whole federation on this machine."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

from fedft.config import RunConfig
from fedft.config.load import from_json, to_json
from fedft.coordinator.coordinator import Coordinator
from fedft.coordinator.events import Notice, Observer, nobody
from fedft.errors import Code, FedftError
from fedft.simulation.interrupt import interrupting
from fedft.simulation.ray_grid import RayGrid
from fedft.simulation.removal import clients_folder, discard_if_pointless
from fedft.simulation.startable import check_startable
from fedft.store import RunRecord, RunStore


def simulate(
    config: RunConfig | None = None, *, store: RunStore, resume: str = "", observer: Observer = nobody
) -> RunRecord:
    """Run a new federation, or resume one, with the carrier that the configuration names.

    Args:
        config: of a new run; None when resuming, which goes on with the stored configuration.
        store: where the run is kept.
        resume: a run's id, a beginning of one, or "latest"; empty for a new run.
        observer: told of everything that happens.

    Raises:
        FedftError: FEDFT-6105 when both or neither of ``config`` and ``resume`` are given; what the
            coordinator raises.
            A simulated client's process that dies (out of memory) restarts the engine after the last
            committed round, ``rounds.retries`` times at most.
        KeyboardInterrupt: after the run has been marked interrupted; it can be resumed.

    """
    if (config is None) == (not resume):
        raise FedftError(
            Code.CONFIG_OR_RESUME, "a simulation starts from a configuration or resumes a run, one of them"
        )
    if config is not None:
        check_startable(config)
    run = store.run(resume) if config is None else store.create_run(config.name, to_json(config))
    settings = from_json(run.config)
    try:
        return _carried_out(run, settings, store, observer)
    except FedftError as error:
        discard_if_pointless(store, run.id, error)
        raise


def _carried_out(run: RunRecord, settings: RunConfig, store: RunStore, observer: Observer) -> RunRecord:
    carrier = _inline if settings.simulation.backend == "inline" else _ray
    for _ in range(settings.rounds.retries):
        try:
            return carrier(store.run(run.id), settings, store, observer)
        except FedftError as error:
            if error.code is not Code.SIMULATED_CLIENT_DIED:
                raise
            store.add_event(run.id, "engine-restarted", error.message)
            observer(Notice("engine-restarted", f"{error.message}; going on from the last committed round"))
    return carrier(store.run(run.id), settings, store, observer)


def _inline(run: RunRecord, config: RunConfig, store: RunStore, observer: Observer) -> RunRecord:
    from fedft.transport.inline import InlineGrid

    grid = InlineGrid(_client_app(store), config.data.partition.clients)
    return Coordinator(grid, store, run, observe=observer).execute()


def _ray(run: RunRecord, config: RunConfig, store: RunStore, observer: Observer) -> RunRecord:
    from flwr.serverapp import Grid, ServerApp

    stop, outcome = threading.Event(), _Outcome()
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, _context: Any) -> None:
        coordinator = Coordinator(RayGrid(grid), store, run, observe=observer, stopped=stop.is_set)
        outcome.keep(coordinator.execute)

    with interrupting(stop):
        _run_flower(server_app, _client_app(store), config)
    return outcome.value()


def _client_app(store: RunStore) -> Any:
    """Return the clients' app; their own files belong to the simulation, so they go where it is kept."""
    from fedft.client import app
    from fedft.client.site.folders import ClientFolders

    return app.new_app(ClientFolders.of_user().with_state(clients_folder(store)))


class _Outcome:
    """What the coordinator's thread returned or raised."""

    def __init__(self) -> None:
        self._value: RunRecord | None = None
        self._error: BaseException | None = None

    def keep(self, call: Callable[[], RunRecord]) -> None:
        try:
            self._value = call()
        except BaseException as error:
            self._error = error

    def value(self) -> RunRecord:
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise FedftError(
                Code.SIMULATION_ENDED_EARLY, "Flower's simulation ended before the coordinator did"
            )
        return self._value


def _run_flower(server_app: Any, client_app: Any, config: RunConfig) -> None:
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    workers = config.simulation.workers
    resources: Any = {"num_cpus": 1, "num_gpus": config.simulation.gpus_per_worker}
    init: Any = {
        "num_cpus": workers,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "include_dashboard": False,
        # Ray's own workers are nice to all others: beside two busy processes a round took 20 times as long.
        "_system_config": {"worker_niceness": 0},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(
            server_app=server_app,
            client_app=client_app,
            num_supernodes=config.data.partition.clients,
            backend_config={"init_args": init, "client_resources": resources},
        )
