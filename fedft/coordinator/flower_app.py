"""Entering the coordinator from Flower's ``ServerApp``, with Flower's run configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flwr.serverapp import Grid

from fedft.config import RunConfig, load_config
from fedft.config.load import to_json
from fedft.coordinator.coordinator import Coordinator
from fedft.coordinator.events import (
    ClientAnswered,
    Event,
    Notice,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
)
from fedft.errors import FedftError
from fedft.store import RunRecord, RunStore

_log = logging.getLogger("flwr")


def run_from_flower(grid: Grid, run_config: Mapping[str, Any]) -> RunRecord:
    """Start the run that Flower's configuration describes, or resume the one that ``resume`` names.

    ``config`` names the TOML file ("demo" for the bundled one); every other key is a key of that file
    and overrides it unless it is empty. Flower allows only keys that the app's manifest lists.
    """
    config = read_run_config(run_config)
    resume = str(run_config.get("resume", ""))
    store = RunStore(config.store.path)
    run = store.run(resume) if resume else store.create_run(config.name, to_json(config))
    try:
        return Coordinator(grid, store, run, observe=log_event).execute()
    except FedftError as error:
        _log.error("%s", error)
        raise


def read_run_config(run_config: Mapping[str, Any]) -> RunConfig:
    """Turn Flower's flat run configuration into a checked run configuration."""
    overrides = {
        key: value for key, value in run_config.items() if key not in ("config", "resume") and value != ""
    }
    return load_config(str(run_config.get("config") or "demo"), overrides)


def log_event(event: Event) -> None:
    """Write the events worth a line into Flower's log."""
    match event:
        case RunStarted():
            _log.info("run %s, rounds %d to %d", event.run_id, event.first_round, event.total_rounds)
        case PhaseStarted():
            _log.info("round %d: %s", event.round, event.phase)
        case ClientAnswered(round=number, update=update) if update.status != "accepted":
            _log.warning("round %d: %s %s %s", number, update.client, update.code, update.message)
        case RoundCommitted(record=record):
            metrics = next((e.metrics for e in record.evaluations if not e.group), {})
            shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))
            _log.info("round %d committed in %.1f s %s", record.round, record.seconds, shown)
        case Notice():
            _log.warning("%s: %s", event.kind, event.message)
        case RunFinished():
            _log.info("finished: run %s, digest %s", event.run_id, event.digest)
        case _:
            pass
