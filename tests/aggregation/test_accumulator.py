from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fedft.aggregation import ExactAccumulator
from fedft.errors import FedftError
from tests.aggregation.conftest import MANIFEST, State, random_state

CLIENTS = 100
Updates = list[tuple[State, int]]


@pytest.fixture(scope="module")
def updates() -> Updates:
    """Scales over seven decades: where sums of floats depend most on their order."""
    rng = np.random.default_rng(5)
    return [
        (
            {name: value * np.float32(10 ** rng.uniform(-5, 2)) for name, value in random_state(i).items()},
            int(rng.integers(1, 5000)),
        )
        for i in range(CLIENTS)
    ]


def total(updates: Updates) -> ExactAccumulator:
    accumulator = ExactAccumulator(MANIFEST)
    for arrays, weight in updates:
        accumulator.add(arrays, weight)
    return accumulator


def test_a_thousand_permutations_give_one_digest(updates: Updates) -> None:
    expected = total(updates)
    mean = {name: value.tobytes() for name, value in expected.mean().items()}
    rng = np.random.default_rng(6)
    for trial in range(1000):
        order = [updates[i] for i in rng.permutation(CLIENTS)]
        result = total(order)
        assert result.digest() == expected.digest(), trial
    assert {name: value.tobytes() for name, value in result.mean().items()} == mean


def test_mean_is_the_mean_of_fractions(updates: Updates) -> None:
    mean = total(updates).mean()
    weights = sum(weight for _, weight in updates)
    for name, array in mean.items():
        for index in np.ndindex(array.shape):
            products = (Fraction(float(arrays[name][index])) * weight for arrays, weight in updates)
            exact = sum(products, start=Fraction(0)) / weights
            # Values below 2**-25 are rounded to the grid of 2**-48, each by half a step at most.
            assert (
                abs(Fraction(float(array[index])) - exact)
                <= abs(exact) * Fraction(2) ** -23 + Fraction(2) ** -49
            )


def test_mean_of_one_update_is_that_update() -> None:
    state = random_state(3)
    accumulator = ExactAccumulator(MANIFEST)
    accumulator.add(state, 17)
    for name, value in accumulator.mean().items():
        assert np.array_equal(value, state[name])


def test_float_sums_of_the_same_updates_do_depend_on_order(updates: Updates) -> None:
    """The oracle of the permutation test can tell: summed in float32, the bits change."""

    def plain(order: Iterable[int]) -> bytes:
        zero = np.zeros((4, 4), np.float32)
        weighted = (updates[i][0]["layer.0.R"] * np.float32(updates[i][1]) for i in order)
        return sum(weighted, start=zero).tobytes()

    assert plain(range(CLIENTS)) != plain(reversed(range(CLIENTS)))


@pytest.mark.parametrize(
    ("change", "weight", "code"),
    [
        (np.nan, 1, "FEDFT-5010"),
        (np.inf, 1, "FEDFT-5010"),
        (-np.inf, 1, "FEDFT-5010"),
        (1025.0, 1, "FEDFT-5010"),
        (0.0, 0, "FEDFT-5008"),
        (0.0, -3, "FEDFT-5008"),
        (0.0, (1 << 20) + 1, "FEDFT-5009"),
    ],
)
def test_refused_contributions_change_nothing(change: float, weight: int, code: str) -> None:
    accumulator = total([(random_state(1), 2)])
    before = accumulator.digest()
    state = random_state(2)
    state["layer.1.R"][3, 3] += np.float32(change)
    with pytest.raises(FedftError, match=code):
        accumulator.add(state, weight)
    assert accumulator.digest() == before
    assert accumulator.count == 1


def test_wrong_names_shapes_and_types_are_refused() -> None:
    for change in ({"extra": np.zeros(2, np.float32)}, {"layer.0.R": np.zeros((4, 5), np.float32)}):
        with pytest.raises(FedftError, match="FEDFT-4015"):
            ExactAccumulator(MANIFEST).add(random_state(1) | change, 1)
    with pytest.raises(FedftError, match="float64"):
        ExactAccumulator(MANIFEST).add(random_state(1) | {"layer.0.R": np.zeros((4, 4))}, 1)


@pytest.mark.parametrize(
    "caps", [{"fraction_bits": 60}, {"max_weight": 1 << 31, "fraction_bits": 10}, {"max_abs": 2.0**40}]
)
def test_caps_that_could_overflow_are_refused(caps: dict[str, Any]) -> None:
    with pytest.raises(FedftError, match="FEDFT-5012"):
        ExactAccumulator(MANIFEST, **caps)


def test_an_empty_mean_is_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-5014"):
        ExactAccumulator(MANIFEST).mean()


def test_a_contribution_at_every_cap_is_exact() -> None:
    accumulator = ExactAccumulator(MANIFEST)
    state = {name: np.full_like(value, -1024.0) for name, value in random_state(0).items()}
    for _ in range(50):
        accumulator.add(state, 1 << 20)
    assert accumulator.exact_sum().to_integers()[0] == -1024 * 2**48 * 2**20 * 50
    assert all((value == -1024.0).all() for value in accumulator.mean().values())
