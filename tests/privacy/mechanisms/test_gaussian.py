import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from fedft.errors import FedftError
from fedft.privacy.mechanisms.clipping import MARGIN, LocalCounts, clip_weights
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from tests.privacy.sources import NoNoise, SeededNoise


def _rows(units: int, dimension: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(units, dimension, generator=torch.Generator().manual_seed(seed)) * scale


def _noiseless(dimension: int, max_norm: float = 1.0, denominator: float = 1.0) -> GaussianMechanism:
    return GaussianMechanism(
        dimension, max_norm=max_norm, noise_multiplier=1.0, denominator=denominator, noise=NoNoise()
    )


def _sum(mechanism: GaussianMechanism, *parts: Tensor) -> Tensor:
    for part in parts:
        mechanism.add(part.clone())
    return mechanism.release()


def test_long_rows_are_brought_to_the_bound_and_short_ones_left_alone() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    counts = LocalCounts()

    clipped = clip_weights(rows, 1.0, counts)[:, None] * rows

    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]), rtol=2e-5, atol=0)
    assert counts == LocalCounts(units=3, clipped=1, non_finite=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_rows_that_are_not_finite_count_as_zero_and_are_counted(bad: float) -> None:
    rows = torch.tensor([[1.0, 2.0, 0.0], [bad, 1.0, bad], [0.0, 0.1, 0.1]])
    mechanism = _noiseless(3)

    released = _sum(mechanism, rows)

    torch.testing.assert_close(released, _sum(_noiseless(3), rows[[0, 2]]))
    assert mechanism.local_counts == LocalCounts(units=3, clipped=1, non_finite=1)


@settings(max_examples=60, deadline=None)
@given(
    units=st.integers(0, 40),
    dimension=st.integers(1, 300),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 30.0, 1e6]),
    bound=st.sampled_from([1e-2, 1.0, 50.0]),
    seed=st.integers(0, 10_000),
)
def test_one_unit_moves_the_sum_by_at_most_the_bound(
    units: int, dimension: int, scale: float, bound: float, seed: int
) -> None:
    others, one = _rows(units, dimension, seed, scale), _rows(1, dimension, seed + 1, 1e4 * scale)

    with_it = _sum(_noiseless(dimension, bound), torch.cat([others, one])).double()
    without = _sum(_noiseless(dimension, bound), others).double()

    rounding = 2.0**-20 * bound * math.sqrt(dimension)  # of the release's grid
    assert (with_it - without).norm() <= bound + rounding


@pytest.mark.parametrize("split", [1, 3, 8])
def test_virtual_batches_change_nothing(split: int) -> None:
    rows = _rows(8, 20)

    parts = _sum(_noiseless(20), *rows.split(split))

    torch.testing.assert_close(parts, _sum(_noiseless(20), rows), rtol=1e-6, atol=1e-6)


def test_the_denominator_is_fixed_whatever_arrives() -> None:
    rows = _rows(6, 5)

    torch.testing.assert_close(
        _sum(_noiseless(5, denominator=10.0), rows), _sum(_noiseless(5), rows) / 10, rtol=1e-6, atol=1e-7
    )


def test_a_release_starts_afresh() -> None:
    mechanism = _noiseless(5)
    _sum(mechanism, _rows(3, 5))

    assert (mechanism.release() == 0).all()


@pytest.mark.parametrize("parts", [0, 1, 5])
def test_noise_is_added_once_however_much_arrived(parts: int) -> None:
    mechanism = GaussianMechanism(200_000, max_norm=0.5, noise_multiplier=3.0, denominator=4.0)
    for _ in range(parts):
        mechanism.add(torch.zeros(2, 200_000))

    noise = mechanism.release().double().numpy()

    assert stats.kstest(noise / (3.0 * 0.5 / 4.0), "norm").pvalue > 1e-6


def test_an_injected_source_is_used() -> None:
    def one() -> Tensor:
        return GaussianMechanism(
            9, max_norm=1, noise_multiplier=1, denominator=1, noise=SeededNoise(3)
        ).release()

    assert torch.equal(one(), one())


def test_noise_differs_between_mechanisms_and_releases() -> None:
    torch.manual_seed(1)
    one = GaussianMechanism(50, max_norm=1, noise_multiplier=1, denominator=1)
    first, second = one.release(), one.release()
    torch.manual_seed(1)
    other = GaussianMechanism(50, max_norm=1, noise_multiplier=1, denominator=1).release()

    assert not torch.isclose(first, second).any()
    assert not torch.isclose(first, other).any()


@pytest.mark.parametrize("field", ["dimension", "max_norm", "noise_multiplier", "denominator"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    values: dict[str, Any] = {
        "dimension": 3,
        "max_norm": 1.0,
        "noise_multiplier": 1.0,
        "denominator": 1.0,
        field: value,
    }

    with pytest.raises(FedftError, match=field) as caught:
        GaussianMechanism(**values)
    assert caught.value.code == "FEDFT-8501"


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3)])
def test_contributions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FedftError) as caught:
        _noiseless(3).add(torch.zeros(shape))
    assert caught.value.code == "FEDFT-8505"


def test_the_margin_is_far_below_what_matters() -> None:
    assert 1 - 2e-5 < MARGIN < 1


def test_outer_products_are_summed_as_their_rows_would_be() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(30, 3, generator=generator), torch.randn(30, 5, generator=generator)
    left[4] = float("nan")
    right[7] = float("inf")
    rows = torch.einsum("na,nb->nab", left, right).flatten(1)
    found = []
    for add in ("add", "add_outer"):
        mechanism = GaussianMechanism(15, max_norm=1.5, noise_multiplier=1e-7, denominator=30)
        getattr(mechanism, add)(*((rows,) if add == "add" else (left, right)))
        found.append((mechanism.release(), mechanism.local_counts))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-6, rtol=1e-5)
    assert found[0][1] == found[1][1]
    assert found[0][1].non_finite == 2


def test_factors_that_make_no_contribution_are_refused() -> None:
    mechanism = GaussianMechanism(15, max_norm=1.0, noise_multiplier=1.0, denominator=1)
    for left, right in ((torch.ones(2, 3), torch.ones(3, 5)), (torch.ones(2, 3), torch.ones(2, 4))):
        with pytest.raises(FedftError, match="FEDFT-8505"):
            mechanism.add_outer(left, right)


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 10_000_000])
def test_a_long_contribution_keeps_within_the_bound(length: int) -> None:
    """Equal entries are the worst case: summed in float32 from end to end the norm falls short at 1e7."""
    rows = torch.full((1, length), 0.1)
    weight = clip_weights(rows, 0.01, LocalCounts())

    assert 0.9999 * 0.01 < float(weight[0].double() * rows.double().norm()) <= 0.01


def test_a_contribution_that_no_factor_brings_to_the_bound_counts_as_zero() -> None:
    rows, counts = torch.tensor([[1e30, 0.0], [1e38, 1e38], [3.0, 4.0]]), LocalCounts()
    weights = clip_weights(rows, 1e-9, counts)

    assert float((weights[:, None] * rows).double().norm(dim=1).max()) <= 1e-9
    assert counts.non_finite == 2
    assert torch.equal(rows[:2], torch.zeros(2, 2))
