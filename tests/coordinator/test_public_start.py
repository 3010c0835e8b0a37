"""What public records teach before the first round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedft.config import RunConfig
from fedft.coordinator.server_model import ServerBase
from fedft.errors import FedftError
from fedft.report.facts import comparisons
from fedft.tensors import Arrays
from fedft.training import seeds
from fedft.training.model_runtime import ModelRuntime
from tests.federation import run_inline, tiny_config

PUBLIC = {"public.steps": 4, "public.batch_size": 4, "public.learning_rate": 0.05}


def iterates(config: RunConfig) -> list[Arrays]:
    """Train step by step, each time from the beginning, and return every iterate."""
    found = []
    for steps in range(1, config.public.steps + 1):
        runtime = ModelRuntime(config)
        runtime.attach(runtime.build_frames())
        section = config.public.model_copy(update={"steps": steps})
        generator = seeds.generator(config.seed, "public training")
        runtime.fit(runtime.data.public(), section=section, generator=generator)
        found.append(runtime.state())
    return found


def test_the_start_is_the_mean_of_the_later_iterates_on_public_records(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **PUBLIC)
    store, run = run_inline(config)
    start, all_of_them = store.state(run.id, 0), iterates(config)
    for name, value in start.items():
        wanted = np.mean([iterate[name] for iterate in all_of_them[2:]], axis=0, dtype=np.float64)
        np.testing.assert_allclose(value, wanted, atol=1e-6)
        assert np.abs(value - all_of_them[0][name]).max() > 1e-4


def test_it_is_measured_beside_the_federation(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **PUBLIC)
    store, run = run_inline(config)
    rounds = store.rounds(run.id)
    names = [row.name for row in comparisons(rounds, "loss", [""])]
    assert names == ["base model", "federated", "public records alone"]
    assert {item.scope for item in rounds[0].evaluations} == {"central", "public"}


def test_any_frame_may_start_from_public_records(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **PUBLIC, **{"adapter.initialiser": "random"})
    base = ServerBase(config, new=True)
    frames = base.build_frames()
    base.attach(frames)
    start = base.start(frames)
    assert all(np.abs(value).max() > 0 for value in start.values())


def test_a_resumed_run_trains_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, **PUBLIC, **{"codec.name": "dense"})
    store, run = run_inline(config)
    digest = run.final_digest
    store.roll_back(run.id, 1)
    monkeypatch.delattr("fedft.coordinator.server_model.train_on_public")
    assert run_inline(config, store=store, run=store.run(run.id))[1].final_digest == digest


@pytest.mark.parametrize(
    "wrong",
    [
        {"data.public": "", "adapter.initialiser": "random"},
        {"public.micro_batch_size": 8},
        {"data.public": "train.jsonl", "privacy.mechanism": "example", "rounds.weighting": "uniform"},
    ],
)
def test_what_cannot_be_a_start_is_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(FedftError, match=r"data\.public|public\.micro_batch_size"):
        tiny_config(tmp_path, **PUBLIC, **wrong)
