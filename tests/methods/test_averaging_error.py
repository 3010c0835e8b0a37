"""The averaging error of a FedIT run against an independent computation in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedft.report.page import render
from fedft.simulation.checkpoints import open_round
from fedft.store import RunStore
from fedft.tensors import Arrays
from fedft.training.local_round import train_client
from fedft.training.model_runtime import ModelRuntime
from tests.federation import run_inline, tiny_config

CLIENTS = 3
SETTINGS: dict[str, object] = {
    "method": "fedit",
    "adapter.scale": 2.0,
    "data.partition.kind": "dirichlet",
    "data.partition.field": "kind",
    "codec.name": "dense",
    "rounds.total": 2,
    "evaluation.every": 0,
}


def trained(runtime: ModelRuntime, state: Arrays, number: int) -> list[Arrays]:
    """Every client's state after a round from ``state``."""
    states = []
    for client in range(CLIENTS):
        runtime.load(state)
        train_client(runtime, client, round_number=number, key=f"client-{client:03d}")
        states.append(runtime.state())
    return states


def expected_error(states: list[Arrays], shares: list[float]) -> float:
    missing = wanted = 0.0
    for layer in {name.removesuffix(".lora_A") for name in states[0] if name.endswith(".lora_A")}:
        factors = [
            (state[f"{layer}.lora_B"].astype(np.float64), state[f"{layer}.lora_A"].astype(np.float64))
            for state in states
        ]
        weights = np.array(shares)
        exact = np.tensordot(weights, np.stack([b @ a for b, a in factors]), axes=1)
        b = np.tensordot(weights, np.stack([b for b, _ in factors]), axes=1)
        a = np.tensordot(weights, np.stack([a for _, a in factors]), axes=1)
        missing += float(np.square(exact - b @ a).sum())
        wanted += float(np.square(exact).sum())
    return float(np.sqrt(missing / wanted))


def test_it_is_that_of_the_clients_factors_and_stands_in_the_report(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path, **SETTINGS))
    rounds = store.rounds(run.id)
    runtime = open_round(store, run, 0)
    page = render(run, rounds, store.events(run.id))
    assert rounds[0].averaging_error is None
    for record in rounds[1:]:
        states = trained(runtime, store.state(run.id, record.round - 1), record.round)
        weights = [update.weight for update in record.updates]
        assert len(set(weights)) > 1
        error = record.averaging_error
        assert error is not None
        assert error > 1e-4
        assert error == pytest.approx(
            expected_error(states, [weight / sum(weights) for weight in weights]), rel=1e-3
        )
        assert f"{error:.3g}" in page
    assert "averaging error" in page


@pytest.mark.parametrize(
    "changes", [{"method": "fedsb"}, {"method": "ffa-lora"}, {"data.partition.clients": 1}]
)
def test_where_there_is_none_none_is_shown(changes: dict[str, object], tmp_path: Path) -> None:
    alone = "data.partition.clients" in changes
    store, run = run_inline(tiny_config(tmp_path, **SETTINGS | {"rounds.total": 1} | changes))
    error = RunStore(store.folder).rounds(run.id)[1].averaging_error
    assert error == pytest.approx(0.0, abs=1e-6) if alone else error is None
    assert ("averaging error" in render(run, store.rounds(run.id), [])) is alone
