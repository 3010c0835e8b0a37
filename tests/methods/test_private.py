"""Private runs of the methods for which they are defined."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.federation import run_inline, tiny_config

COMMON: dict[str, object] = {
    "privacy.epsilon": 5.0,
    "rounds.weighting": "uniform",
    "rounds.total": 2,
    "evaluation.every": 0,
    "adapter.initialiser": "random",
}


@pytest.mark.parametrize("name", ["fedsb", "ffa-lora"])
def test_example_level_updates_are_charged_and_counted(name: str, tmp_path: Path) -> None:
    private = {"method": name, "privacy.mechanism": "example", "privacy.delta": 1e-3}
    config = tiny_config(tmp_path, **COMMON | private)
    store, run = run_inline(config)
    last = store.rounds(run.id)[-1]
    assert [update.status for update in last.updates] == ["accepted"] * 3
    assert all(value.any() for value in store.state(run.id, 2).values())


@pytest.mark.parametrize("name", ["fedsb", "ffa-lora"])
def test_client_level_noise_reaches_every_tensor(name: str, tmp_path: Path) -> None:
    private = {"method": name, "privacy.mechanism": "client", "privacy.delta": 0.1}
    store, run = run_inline(tiny_config(tmp_path, **COMMON | private))
    assert run.status == "completed"
    assert all(value.any() for value in store.state(run.id, 2).values())
