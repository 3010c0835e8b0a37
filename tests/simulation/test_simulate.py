"""Starting a simulation, and an engine that ends before the run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flwr.simulation
import pytest

from fedft.errors import FedftError
from fedft.simulation.simulate import simulate
from fedft.store import RunStore
from tests.federation import run_inline, tiny_config


def test_a_simulation_is_of_a_configuration_or_of_a_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    store, run = run_inline(config)

    with pytest.raises(FedftError, match="FEDFT-6105"):
        simulate(store=store)
    with pytest.raises(FedftError, match="FEDFT-6105"):
        simulate(config, store=store, resume=run.id)

    assert len(store.runs()) == 1


def test_an_engine_that_ends_before_the_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends_at_once(**_settings: Any) -> None:
        return

    monkeypatch.setattr(flwr.simulation, "run_simulation", ends_at_once)
    config = tiny_config(tmp_path, **{"simulation.backend": "ray"})

    with pytest.raises(FedftError, match="FEDFT-6106"):
        simulate(config, store=RunStore(config.store.path))
