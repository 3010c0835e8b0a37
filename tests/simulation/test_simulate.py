"""Starting a simulation, and an engine that ends before the run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flwr.simulation
import pytest

from fedft.errors import Code, FedftError
from fedft.simulation.removal import discard_if_pointless, remove_run
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


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"data.train": "nowhere.jsonl"}, "FEDFT-3001"),
        ({"data.fields.prompt": "question"}, "FEDFT-3005"),
        ({"model.source": "./nowhere"}, "FEDFT-2001"),
        ({"adapter.targets": ["quarry"]}, "FEDFT-2111"),
        ({"adapter.rank": 4096}, "FEDFT-2104"),
        ({"model.chat_template": "", "data.fields.messages": "chat"}, "FEDFT-3022"),
    ],
)
def test_a_mistake_is_found_before_there_is_a_run(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **change)
    store = RunStore(config.store.path)

    with pytest.raises(FedftError, match=code):
        simulate(config, store=store)

    assert store.runs() == []


def test_an_unreadable_field_is_a_mistake_in_a_private_simulation_too(tmp_path: Path) -> None:
    private = {"privacy.mechanism": "example", "privacy.epsilon": 8.0, "privacy.delta": 1e-3}
    config = tiny_config(tmp_path, **private, **{"rounds.weighting": "uniform", "data.fields.prompt": "x"})

    with pytest.raises(FedftError, match="FEDFT-3005"):
        simulate(config, store=RunStore(config.store.path))


@pytest.mark.parametrize(("code", "kept"), [(Code.CHECKPOINT_MISMATCH, 0), (Code.TOO_FEW_CLIENTS, 1)])
def test_a_run_that_can_never_begin_is_not_kept(
    code: Code, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_given: Any) -> None:
        raise FedftError(code, "as it would be the next time")

    monkeypatch.setattr("fedft.simulation.simulate._inline", fails)
    config = tiny_config(tmp_path)
    store = RunStore(config.store.path)

    with pytest.raises(FedftError, match=code):
        simulate(config, store=store)

    assert len(store.runs()) == kept


def test_a_committed_run_stays_whatever_ends_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    store, run = run_inline(config)

    discard_if_pointless(store, run.id, FedftError(Code.CHECKPOINT_MISMATCH, "x"))
    assert len(store.runs()) == 1


def test_a_removed_run_takes_its_files_along_and_no_other_run_s(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"codec.name": "ternary"})
    store = RunStore(config.store.path)
    first, second = (simulate(config, store=store) for _ in range(2))
    longer = simulate(tiny_config(tmp_path, **{"codec.name": "ternary", "seed": 5}), store=store)
    assert first.final_digest == second.final_digest != longer.final_digest

    remove_run(store, first.id)
    assert [run.id for run in store.runs()] == [second.id, longer.id]
    assert store.state(second.id, second.rounds)

    remove_run(store, second.id)
    remove_run(store, longer.id)
    assert store.runs() == []
    left = [
        path
        for folder in ("states", "frames", "locks", "clients/residuals")
        for path in (store.folder / folder).glob("*")
    ]
    assert left == []


def test_a_run_that_is_carried_out_is_not_removed(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path))
    with store.lock(run.id), pytest.raises(FedftError, match="FEDFT-6007"):
        remove_run(store, run.id)
    assert len(store.runs()) == 1
