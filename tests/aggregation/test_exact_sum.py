from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.aggregation.exact_sum import ExactSum
from fedft.errors import FedftError

FRACTION_BITS = 40
# Each is on the grid of 2**-40: a float32 of magnitude 2**-17 or more, or a multiple of 2**-40.
ON_GRID = st.one_of(
    st.just(0.0),
    st.floats(2.0**-17, 1000.0, width=32),
    st.floats(-1000.0, -(2.0**-17), width=32),
)


def add(total: ExactSum, values: list[float], weight: int) -> None:
    array = np.array(values, dtype=np.float32)
    total.contribution(weight, float(np.abs(array).max())).add_dense(0, array)


@given(
    st.lists(
        st.tuples(st.lists(ON_GRID, min_size=3, max_size=3), st.integers(1, 1 << 28)), min_size=1, max_size=8
    )
)
@settings(max_examples=150, deadline=None)
def test_sum_equals_the_sum_of_fractions(contributions: list[tuple[list[float], int]]) -> None:
    total = ExactSum(3, FRACTION_BITS)
    for values, weight in contributions:
        add(total, values, weight)
    expected = [
        sum((Fraction(values[i]) * weight for values, weight in contributions), Fraction(0)) for i in range(3)
    ]
    assert [Fraction(value, 1 << FRACTION_BITS) for value in total.to_integers()] == expected
    # One rounding in float64, as long as the high limb is exact in it.
    exact = [float(value * (1 << FRACTION_BITS)) for value in expected]
    assert total.to_float64().tolist() == pytest.approx(exact, rel=2**-52)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_many_wide_contributions_carry_without_loss(seed: int, rounds: int) -> None:
    """Weights and values at their caps take the two-limb path and overflow the low limb again and again."""
    rng = np.random.default_rng(seed)
    total = ExactSum(4, 48)
    expected = [0] * 4
    for _ in range(rounds * 20):
        values = rng.choice([-1024.0, 1024.0, 1e-3, -1e-3, 3.0], size=4)
        weight = int(rng.integers(1, 1 << 20))
        total.contribution(weight, 1024.0).add_dense(0, values)
        expected = [
            old + weight * round(Fraction(value) * 2**48) for old, value in zip(expected, values, strict=True)
        ]
    assert total.to_integers() == expected


@pytest.mark.parametrize("sign", [1, -1])
def test_narrow_contributions_carry_before_the_low_limb_overflows(sign: int) -> None:
    """Each is below 2**62 and takes the one-limb path; a few of them do not fit an int64."""
    total = ExactSum(2, 50)
    for _ in range(20):
        total.contribution(3, 1000.0).add_dense(0, np.array([sign * 1000.0, 0.0]))
    assert total.to_integers() == [sign * 60_000 << 50, 0]


def test_sparse_and_dense_contributions_agree() -> None:
    values = np.array([0.0, 1.5, 0.0, -2.25, 0.0], dtype=np.float32)
    dense, sparse = ExactSum(5, FRACTION_BITS), ExactSum(5, FRACTION_BITS)
    dense.contribution(7, 2.25).add_dense(0, values)
    sparse.contribution(7, 2.25).add_sparse(np.array([1, 3]), values[[1, 3]])
    assert dense.digest() == sparse.digest()


@pytest.mark.parametrize("weight", [1, 3, (1 << 20) - 1])
def test_sparse_and_dense_agree_on_the_wide_path(weight: int) -> None:
    values = np.array([0.0, 1024.0, 0.0, -1000.125], dtype=np.float64)
    dense, sparse = ExactSum(4, 52), ExactSum(4, 52)
    dense.contribution(weight, 1024.0).add_dense(0, values)
    sparse.contribution(weight, 1024.0).add_sparse(np.array([1, 3]), values[[1, 3]])
    assert dense.digest() == sparse.digest()
    assert dense.to_integers() == [0, weight << 62, 0, -weight * (8001 << 49)]


def test_values_between_grid_points_round_to_even() -> None:
    total = ExactSum(3, 0)
    total.contribution(1, 3.0).add_dense(0, np.array([0.5, 1.5, -2.5]))
    assert total.to_integers() == [0, 2, -2]


def test_digest_depends_on_a_single_unit() -> None:
    one, two = ExactSum(2, FRACTION_BITS), ExactSum(2, FRACTION_BITS)
    one.contribution(1, 1.0).add_dense(0, np.array([1.0, 0.0]))
    two.contribution(1, 1.0).add_dense(0, np.array([1.0, 2.0**-FRACTION_BITS]))
    assert one.digest() != two.digest()


def test_digest_does_not_depend_on_when_limbs_were_carried() -> None:
    """-1 is high = -1, low = 2**32 - 1 in normal form and high = 0, low = -1 before."""
    direct, detour = ExactSum(1, 0), ExactSum(1, 0)
    direct.contribution(1, 1.0).add_dense(0, np.array([-1.0]))
    for value in (2.0**40, -(2.0**40), -1.0):
        detour.digest()
        detour.contribution(1, 2.0**40).add_dense(0, np.array([value]))
    assert direct.digest() == detour.digest()
    assert direct.to_integers() == [-1]


def test_capacity_is_refused_before_it_is_exceeded() -> None:
    total = ExactSum(1, 50)
    for _ in range(2**94 // (2**60 * 2**30) - 1):
        total.contribution(1 << 30, 1024.0).add_dense(0, np.array([1024.0]))
    with pytest.raises(FedftError, match="FEDFT-5011"):
        total.contribution(1 << 30, 1024.0)
    assert total.to_integers() == [15 << 90]
