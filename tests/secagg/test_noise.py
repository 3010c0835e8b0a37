"""Noise in shares: the sampler's law, the bound on its sum, and what the mechanism lets out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedft.errors import FedftError
from fedft.secagg.discrete_gaussian import _bernoulli_exp, discrete_gaussian
from fedft.secagg.distributed_noise import DistributedNoise
from fedft.secagg.noise_accounting import ORDERS, NoiseShares, least_variance
from fedft.secagg.random_words import secure_words, uniform_below
from tests.secagg.federation import Dropouts, Federation

SEED = b"round 7"


def seeded(seed: int) -> object:
    rng = np.random.default_rng(seed)
    return lambda count: rng.integers(0, 2**64, size=count, dtype=np.uint64)


def masses(variance: int, reach: int) -> NDArray[np.float64]:
    """The discrete Gaussian's probabilities from -reach to reach, by their definition in float64."""
    points = np.arange(-reach, reach + 1, dtype=np.float64)
    weights: NDArray[np.float64] = np.exp(-(points**2) / (2 * variance))
    return weights / float(weights.sum())


@pytest.mark.parametrize("variance", [1, 2, 7, 100, 4000])
def test_samples_have_the_law(variance: int) -> None:
    count, reach = 200_000, 5 * math.isqrt(variance) + 5
    samples = discrete_gaussian(count, variance, seeded(variance))  # type: ignore[arg-type]

    expected = count * masses(variance, reach)
    inside = samples[np.abs(samples) <= reach]
    observed = np.bincount(inside + reach, minlength=2 * reach + 1)
    usual = expected >= 5
    chi_squared = float(((observed - expected)[usual] ** 2 / expected[usual]).sum())
    freedom = int(usual.sum())
    assert chi_squared < freedom + 6 * math.sqrt(2 * freedom)
    assert abs(samples.mean()) < 6 * math.sqrt(variance / count)
    assert (samples > 0).sum() == pytest.approx((samples < 0).sum(), abs=6 * math.sqrt(count))


def test_neighbouring_samples_are_independent() -> None:
    samples = discrete_gaussian(200_000, 50).astype(np.float64)

    for lag in (1, 2, 17):
        correlation = float(samples[lag:] @ samples[:-lag]) / (50 * samples.size)
        assert abs(correlation) < 6 / math.sqrt(samples.size)


@pytest.mark.parametrize(("exponent", "unit"), [(0, 5), (1, 3), (5, 5), (7, 2), (40, 9)])
def test_coins_of_exponential_probability(exponent: int, unit: int) -> None:
    count = 200_000
    coins = _bernoulli_exp(np.full(count, exponent, dtype=np.uint64), unit, secure_words)

    probability = math.exp(-exponent / unit)
    assert abs(coins.mean() - probability) <= 6 * math.sqrt(probability * (1 - probability) / count)


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 2**63, 3 * 2**61 + 1])
def test_words_that_would_favour_some_integers_are_drawn_again(bound: int) -> None:
    last = 2**64 // bound * bound - 1
    words: Iterator[int] = iter([2**64 - 1, last, 0, 5])

    drawn = uniform_below(bound, 2, lambda count: np.array([next(words) for _ in range(count)], np.uint64))

    first = (2**64 - 1) % bound if last == 2**64 - 1 else 0
    assert drawn.tolist() == [first, last % bound]


def test_secure_words_never_repeat() -> None:
    assert not np.array_equal(secure_words(4), secure_words(4))


def test_variances_out_of_range() -> None:
    for variance in (0, -1, 2**24 + 1):
        with pytest.raises(FedftError, match="FEDFT-8828"):
            discrete_gaussian(1, variance)


@pytest.mark.parametrize(("shares", "variance"), [(1, 1), (2, 1), (3, 1), (10, 1), (7, 2), (20, 4)])
@pytest.mark.parametrize("norm", [1, 2])
def test_the_renyi_bound_holds_for_the_true_law_of_the_sum(shares: int, variance: int, norm: int) -> None:
    """Against the sum's probabilities, convolved in float64, and not far above."""
    law = summed(shares, variance)
    bound = NoiseShares(shares, variance, 1, norm)

    for order in (1.5, 2.0, 4.0, 8.0):
        true = renyi(law[norm:], law[:-norm], order)
        assert true <= bound.renyi(order) * (1 + 1e-9)
        if bound.gap < 1e-3:
            assert bound.renyi(order) <= 1.01 * true + 1e-3


@pytest.mark.parametrize(("shares", "variance"), [(2, 1), (5, 1), (10, 2)])
def test_the_gap_bounds_how_far_the_sum_is_from_one_discrete_gaussian(shares: int, variance: int) -> None:
    law = summed(shares, variance)
    reach = law.size // 2
    one = masses(shares * variance, reach)
    middle = slice(reach - 4 * math.isqrt(shares * variance), reach + 4 * math.isqrt(shares * variance) + 1)

    differences = np.abs(np.log(law[middle]) - np.log(one[middle]))
    assert differences.max() <= NoiseShares(shares, variance, 1, 1).gap + 1e-12


@pytest.mark.parametrize(("shares", "variance", "steps"), [(1, 64, 1), (7, 9, 10), (10, 4, 50)])
def test_epsilon_holds_for_the_true_law(shares: int, variance: int, steps: int) -> None:
    """δ(ε) of the sum in one dimension, by composing its privacy losses in float64."""
    claim = NoiseShares(shares, variance, 1, 2).epsilon(steps, 1e-5)
    law = summed(shares, variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        losses = np.log(law[2:]) - np.log(law[:-2])
    kept = (law[2:] > 1e-30) & (law[:-2] > 1e-30)
    # The loss is linear in x, so that T of them add up to a lattice: convolve the law on it.
    probabilities = law[2:][kept]
    total, loss = probabilities, losses[kept]
    slope = (loss[-1] - loss[0]) / (loss.size - 1)
    for _ in range(steps - 1):
        total = np.convolve(total, probabilities)
    grid = steps * loss[0] + slope * np.arange(total.size)
    delta = float((total * np.maximum(0, 1 - np.exp(claim - grid))).sum())
    assert delta <= 1e-5


def test_against_dp_accounting() -> None:
    shares = NoiseShares(10, 400, 5000, 60.0)
    accountant = RdpAccountant(ORDERS)
    accountant.compose(dp_accounting.ZCDpEvent(60.0**2 / (2 * 10 * 400)), 20)

    assert shares.gap == 0
    assert shares.epsilon(20, 1e-6) == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-9)


def test_one_discrete_gaussian_against_loss_distributions() -> None:
    exact = pld.from_discrete_gaussian_mechanism(sigma=64.0, sensitivity=64).get_epsilon_for_delta(1e-5)
    bound = NoiseShares(1, 64**2, 1, 64.0).epsilon(1, 1e-5)

    assert exact == pytest.approx(4.3772, abs=1e-3)
    assert exact <= bound <= 1.1 * exact


def summed(shares: int, variance: int) -> NDArray[np.float64]:
    one = masses(variance, 40 * math.isqrt(variance) + 40)
    law = one
    for _ in range(shares - 1):
        law = np.convolve(law, one)
    return law


def renyi(p: NDArray[np.float64], q: NDArray[np.float64], order: float) -> float:
    kept = (p > 1e-250) & (q > 1e-250)
    p, q = np.log(p[kept]), np.log(q[kept])
    return float(np.log(np.exp(order * p + (1 - order) * q).sum()) / (order - 1))


@pytest.mark.parametrize(("honest", "epsilon"), [(3, 1.0), (7, 3.0), (20, 8.0)])
def test_calibration_is_enough_and_no_more(honest: int, epsilon: float) -> None:
    target = NoiseShares(honest, 1, 4096, 80.0)

    variance = least_variance(target, 20, epsilon, 1e-5)

    def spent(value: int) -> float:
        return NoiseShares(honest, value, 4096, 80.0).epsilon(20, 1e-5)

    assert spent(variance) <= epsilon < spent(variance - 1)


def test_no_noise_is_enough() -> None:
    with pytest.raises(FedftError, match="FEDFT-8828"):
        least_variance(NoiseShares(1, 1, 4096, 1e6), 1000, 0.1, 1e-9)


def make_mechanism(**changes: float) -> DistributedNoise:
    terms = {"max_norm": 1.0, "step": 0.02, "honest": 5, "clients": 7, "reach": 40, "steps": 10}
    options = {**terms, "epsilon": 3.0, "delta": 1e-5, **changes}
    return DistributedNoise.calibrated(1000, **options)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 2**32), size=st.sampled_from([1, 10, 1000]))
def test_a_units_integers_never_exceed_the_norm(scale: float, seed: int, size: int) -> None:
    mechanism = make_mechanism()
    vector = np.zeros(1000, dtype=np.float32)
    vector[:size] = np.random.default_rng(seed).normal(0, scale, size)

    integers = mechanism.integers(vector, SEED, np.random.default_rng(seed))

    assert np.sqrt(float(np.dot(integers, integers))) <= mechanism.norm


def test_a_unit_that_is_not_finite_counts_as_nothing() -> None:
    mechanism = make_mechanism()
    for bad in (np.nan, np.inf, 3e38):
        vector = np.full(1000, bad, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            assert not mechanism.integers(vector, SEED, np.random.default_rng(0)).any()


def test_one_example_moves_a_sites_vector_by_no_more_than_its_norm() -> None:
    """Before noise, clamping included: the site's sum with and without one example."""
    mechanism = make_mechanism(reach=3)
    rng = np.random.default_rng(0)
    examples = [mechanism.integers(rng.normal(0, 1, 1000).astype(np.float32), SEED, rng) for _ in range(30)]
    whole = np.sum(examples, axis=0)

    for left_out in examples:
        moved = np.clip(whole, -3, 3) - np.clip(whole - left_out, -3, 3)
        assert float(np.sqrt(np.dot(moved, moved))) <= mechanism.norm


@pytest.mark.parametrize("gone", [0, 2])
def test_the_sum_has_the_survivors_noise_and_nothing_else_changed(gone: int) -> None:
    mechanism = make_mechanism()
    rng = np.random.default_rng(1)
    vectors = [rng.normal(0, 0.02, 1000).astype(np.float32) for _ in range(7)]
    integers = {n: mechanism.integers(vector, SEED, rng) for n, vector in enumerate(vectors)}
    digits = {n: mechanism.digits(units) for n, units in integers.items()}
    federation = Federation(7)
    federation.exchange_keys()

    result = federation.sum(digits, 2 * mechanism.half, dropouts=Dropouts(masked=range(gone)))
    survivors = result.survivors
    noised = mechanism.total(result.digits, len(survivors), SEED)

    exact = mechanism.total(
        sum(integers[n] for n in survivors) + len(survivors) * mechanism.half,  # type: ignore[arg-type]
        len(survivors),
        SEED,
    )
    noise = (noised - exact) / mechanism.step
    expected = len(survivors) * mechanism.variance
    assert noise.var() == pytest.approx(expected, rel=6 * math.sqrt(2 / 1000))
    plain = sum(vectors[n].astype(np.float64) for n in survivors)
    assert np.abs(exact - plain).max() < 6 * mechanism.step * math.sqrt(len(survivors)) / 2
    assert expected >= mechanism.honest * mechanism.variance


def test_what_is_claimed() -> None:
    mechanism = make_mechanism()

    assert mechanism.epsilon(10, 7, 1e-5) <= 3.0
    assert mechanism.epsilon(10, 7, 1e-5) > 2.9
    assert mechanism.epsilon_alone(10, 1e-5) > 2 * mechanism.epsilon(10, 7, 1e-5)
    fewer = DistributedNoise(1000, 1.0, 0.02, 4, mechanism.variance, mechanism.reach, mechanism.room)
    assert fewer.epsilon(10, 7, 1e-5) > 3.0
    tight = DistributedNoise(1000, 1.0, 0.02, 5, mechanism.variance, mechanism.reach, 3)
    assert tight.epsilon(10, 7, 1e-5) == math.inf


def test_the_whole_range_is_used_only_by_noise() -> None:
    mechanism = make_mechanism()
    digits = mechanism.digits(np.full(4096, 10**6))

    assert digits.min() >= mechanism.half + mechanism.reach - mechanism.room
    assert digits.max() <= 2 * mechanism.half


def test_payloads_differ_where_the_mechanism_does() -> None:
    mechanism = make_mechanism()
    others = [make_mechanism(step=0.03), make_mechanism(honest=4), make_mechanism(reach=41)]

    digests = {m.payload(SEED).grid for m in [mechanism, *others]} | {mechanism.payload(b"other").grid}
    assert len(digests) == 5
    assert mechanism.payload(SEED).elements == 4096


@pytest.mark.parametrize("change", [{"max_norm": 0.0}, {"step": math.inf}, {"reach": 0}, {"honest": 0}])
def test_mechanisms_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(FedftError, match="FEDFT-8828"):
        make_mechanism(**change)
