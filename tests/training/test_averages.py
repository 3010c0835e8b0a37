"""Means of states over rounds, against their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.config import RunConfig
from fedft.config.schema import RoundsSection
from fedft.errors import FedftError
from fedft.registries import AVERAGES
from fedft.training.stages import stage_weights
from tests.federation import run_inline, tiny_config


def weights(name: str, rounds: int, **options: float) -> list[float]:
    section = RoundsSection.model_validate({"average": name, **options})
    return AVERAGES.get(name).weights(rounds, section.options)


@given(st.sampled_from(AVERAGES.built_in), st.integers(1, 200))
def test_weights_are_those_of_a_mean(name: str, rounds: int) -> None:
    found = weights(name, rounds)
    assert len(found) == rounds
    assert min(found) >= 0
    assert sum(found) == pytest.approx(1)
    assert found == sorted(found)


def test_the_tail_is_uniform() -> None:
    assert weights("tail", 10, tail=0.3) == [0.0] * 7 + [1 / 3] * 3
    assert weights("tail", 3, tail=0.01) == [0, 0, 1]
    assert weights("last", 3) == [0, 0, 1]


def test_the_exponential_one_is_a_moving_average_less_its_start() -> None:
    """mₜ = d mₜ₋₁ + (1 − d) xₜ from zero, over 1 − dᵗ."""
    values, decay, moving = np.arange(1.0, 8.0), 0.7, 0.0
    for value in values:
        moving = decay * moving + (1 - decay) * value
    found = float(np.dot(weights("exponential", 7, decay=decay), values))
    assert found == pytest.approx(moving / (1 - decay**7))


def test_each_stage_ends_with_its_own_mean() -> None:
    config = RunConfig.model_validate(
        {
            "task": {"kind": "sequence-classification", "labels": ["a", "b"]},
            "adapter": {"initialiser": "random"},
            "head": {"rounds": 5},
            "rounds": {"total": 8, "average": "tail", "tail": 0.5},
        }
    )
    found = [stage_weights(config, number) for number in range(1, 9)]
    assert found[:4] == [{number: 1.0} for number in range(1, 5)]  # the center, then the head
    assert found[4] == {4: 0.5, 5: 0.5}
    assert found[5:7] == [{6: 1.0}, {7: 1.0}]
    assert found[7] == {7: 0.5, 8: 0.5}


@pytest.mark.parametrize("downlink", ["dense", "int8"])
def test_a_run_ends_with_the_mean_of_its_states(tmp_path: Path, downlink: str) -> None:
    settings: dict[str, Any] = {"codec.downlink": downlink, "codec.name": "dense"}
    plain_store, plain = run_inline(tiny_config(tmp_path, **settings))
    states = [plain_store.state(plain.id, number) for number in (1, 2, 3)]
    settings |= {"rounds.average": "exponential", "rounds.decay": 0.5}
    store, run = run_inline(tiny_config(tmp_path, **settings))
    for name, value in store.state(run.id, 3).items():
        wanted = sum(w * state[name] for w, state in zip((1 / 7, 2 / 7, 4 / 7), states, strict=True))
        np.testing.assert_allclose(value, wanted, atol=1e-7)
    store.roll_back(run.id, 2)
    assert run_inline(store=store, run=store.run(run.id), config=tiny_config(tmp_path, **settings))[1]


def test_states_that_a_mean_needs_are_kept(tmp_path: Path) -> None:
    with pytest.raises(FedftError, match=r"store\.keep_states"):
        tiny_config(tmp_path, **{"rounds.average": "tail", "store.keep_states": 1})
    assert tiny_config(tmp_path, **{"rounds.average": "tail", "store.keep_states": 2})
