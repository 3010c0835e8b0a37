"""Run stores with made-up records, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedft.codecs import state_digest
from fedft.config import load_config
from fedft.config.load import to_json
from fedft.store import EvaluationRecord, RoundRecord, RunRecord, RunStore, UpdateRecord
from fedft.tensors import Arrays

GROUPS = ("age", "bus")


def state(value: float) -> Arrays:
    return {"layer.R": np.full((2, 2), value, np.float32)}


def digest(number: int) -> str:
    """The digest of ``state(number)``."""
    return state_digest(state(number))


def update(client: str, status: str = "accepted", **values: object) -> UpdateRecord:
    sent = {"bytes_up": 1000, "bytes_down": 1100, "num_examples": 10, "weight": 10, "seconds": 2.0}
    return UpdateRecord(client, status, **(sent | values))  # type: ignore[arg-type]


def evaluations(share: float, scope: str = "central") -> tuple[EvaluationRecord, ...]:
    metrics = {"loss": 2.0 - share, "exact_match": share}
    whole = EvaluationRecord(scope, "", 40, metrics)
    parts = [EvaluationRecord(scope, group, 20, {**metrics, "exact_match": share}) for group in GROUPS]
    return (whole, *parts)


def beginning() -> RoundRecord:
    roll = tuple(update(f"client-{i}", bytes_up=50, bytes_down=0, bytes_setup=5000) for i in range(3))
    return RoundRecord(
        0,
        digest(0),
        seconds=3.0,
        phases={"evaluation": 2.5},
        updates=roll,
        evaluations=evaluations(0.125),
    )


def training_round(number: int) -> RoundRecord:
    """One accepted, one refused, and one failed update of three."""
    updates = (
        update("client-0"),
        update("client-1", "refused", code="FEDFT-5016", message="norm 12000 is over 10000"),
        update("client-2", "failed", message="its process ended", bytes_up=0),
    )
    return RoundRecord(
        number,
        digest(number),
        seconds=5.0,
        phases={"training": 4.0, "evaluation": 1.0},
        updates=updates,
        evaluations=evaluations(0.125 + 0.25 * number),
    )


def add_run(store: RunStore, *, rounds: int = 2, name: str = "demo", finished: bool = True) -> RunRecord:
    """Add a run of ``rounds`` rounds; the last is at exact match 0.125 + 0.25 * rounds."""
    config = load_config("demo", {"rounds.total": max(1, rounds), "name": name})
    run = store.create_run(name, to_json(config))
    store.update_run(run.id, base_digest="ab" * 32, frame_digest="cd" * 32)
    store.commit_round(run.id, beginning(), state(0))
    for number in range(1, rounds + 1):
        store.commit_round(run.id, training_round(number), state(number))
    if finished:
        store.update_run(run.id, status="completed", final_digest=digest(rounds))
    return store.run(run.id)


def store_with_run(folder: Path, **values: object) -> tuple[RunStore, RunRecord]:
    store = RunStore(folder)
    return store, add_run(store, **values)  # type: ignore[arg-type]
