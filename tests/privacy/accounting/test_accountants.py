"""ε against published values, closed forms, numerical integration and dp-accounting's own accountant."""

import math
import pickle
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from scipy import integrate, optimize, stats

from fedft.errors import FedftError
from fedft.privacy.accounting import accountants as accounting
from fedft.privacy.accounting.accountants import COARSE, attack_epsilon, claim, pld_epsilon, rdp_epsilon
from fedft.privacy.accounting.events import Claim, PrivacyEvent, check_delta, merge

# (sample rate, noise multiplier, steps, δ, ε by loss distributions, ε by Opacus' Rényi accountant)
REFERENCE = [
    (1.0, 1.0, 1, 1e-5, 4.3772, 4.7285),
    (1.0, 5.0, 10, 1e-5, 2.5944, 2.8137),
    (0.01, 1.0, 1000, 1e-5, 1.8282, 2.1014),
    (0.01, 0.8, 1000, 1e-5, 3.1410, 3.6954),
    (0.01, 1.0, 10000, 1e-5, 6.1877, 6.7127),
    (256 / 60000, 1.1, 14063, 1e-5, 2.3818, 2.5967),
    (0.02, 1.5, 500, 1e-5, 1.3696, 1.5140),
    (0.05, 1.0, 200, 1e-5, 4.7659, 5.3676),
    (0.1, 2.0, 300, 1e-6, 4.7128, 5.0821),
    (0.25, 4.0, 400, 1e-5, 5.8642, 6.3395),
    (0.5, 8.0, 1000, 1e-6, 10.9116, 11.6054),
    (0.001, 0.6, 5000, 1e-6, 2.7484, 3.6274),
    (0.032, 0.7, 94, 1e-5, 5.3389, 6.3579),
    (0.01, 2.0, 1000, 1e-5, 0.62, None),
    (0.01, 4.0, 1000, 1e-5, 0.27, None),
    (1.0, 10.0, 100, 1e-5, 4.3772, None),
    (1.0, 0.5, 1, 1e-6, 10.9972, None),
    (1.0, 4.0, 3, 1e-6, 1.9254, None),
    (0.1, 1.0, 1, 1e-5, 1.6845, None),
    (0.01, 0.8, 1, 1e-6, 0.8876, None),
]

HETEROGENEOUS = [
    [PrivacyEvent(1.0, 0.01, 1000), PrivacyEvent(1.2, 0.02, 1000)],
    [PrivacyEvent(1.0, 0.01, 500), PrivacyEvent(5.0, 1.0, 3), PrivacyEvent(2.0, 0.1, 50)],
    [PrivacyEvent(0.8, 0.02, 300), PrivacyEvent(0.9, 0.03, 300)],
    [PrivacyEvent(0.7, 0.05, 200), PrivacyEvent(1.0, 1.0, 1)],
    [PrivacyEvent(3.0, 0.1, 50, max_batch=20, examples=100), PrivacyEvent(2.5, 0.01, 200)],
    [PrivacyEvent(6.0, 1.0, 8, max_batch=50, examples=100)],
    [PrivacyEvent(0.65, 0.03, 300), PrivacyEvent(0.8, 0.07, 100)],
]


@pytest.mark.parametrize(("rate", "sigma", "steps", "delta", "expected", "renyi"), REFERENCE)
def test_reference_values(
    rate: float, sigma: float, steps: int, delta: float, expected: float, renyi: float | None
) -> None:
    event = PrivacyEvent(sigma, rate, steps)

    tolerance = 5e-4 if expected != round(expected, 2) else 5e-3
    assert pld_epsilon([event], delta) == pytest.approx(expected, abs=tolerance)
    if renyi is not None:
        assert rdp_epsilon([event], delta) == pytest.approx(renyi, abs=5e-4)


@pytest.mark.parametrize("events", HETEROGENEOUS)
def test_heterogeneous_lists_agree_with_the_librarys_accountant(events: list[PrivacyEvent]) -> None:
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL, 3e-4)
    for event in events:
        accountant.compose(_library_event(event), event.steps)

    assert pld_epsilon(events, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=5e-3)


def _library_event(event: PrivacyEvent) -> dp_accounting.DpEvent:
    if event.max_batch is not None:
        return dp_accounting.TruncatedSubsampledGaussianDpEvent(
            event.examples, event.sample_rate, event.max_batch, event.noise_multiplier
        )
    return dp_accounting.PoissonSampledDpEvent(
        event.sample_rate, dp_accounting.GaussianDpEvent(event.noise_multiplier)
    )


def test_heterogeneous_reference_value() -> None:
    assert pld_epsilon(HETEROGENEOUS[0], 1e-5) == pytest.approx(3.3711, abs=5e-4)


@pytest.mark.parametrize(
    ("sigma", "steps", "delta"), [(0.5, 1, 1e-6), (1, 1, 1e-5), (4, 3, 1e-6), (0.9, 2, 1e-5)]
)
def test_unsampled_gaussian_equals_the_closed_form(sigma: float, steps: int, delta: float) -> None:
    mu = math.sqrt(steps) / sigma  # Balle and Wang (2018), theorem 8

    def excess(epsilon: float) -> float:
        first = stats.norm.cdf(mu / 2 - epsilon / mu)
        return float(first - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu) - delta)

    assert pld_epsilon([PrivacyEvent(sigma, 1.0, steps)], delta) == pytest.approx(
        optimize.brentq(excess, 0, 60), rel=1e-3
    )


@pytest.mark.parametrize(("rate", "sigma", "delta"), [(0.1, 1.0, 1e-5), (0.3, 0.6, 1e-4)])
def test_one_sampled_step_equals_numerical_integration(rate: float, sigma: float, delta: float) -> None:
    def excess(epsilon: float) -> float:
        def positive_part(x: float) -> float:
            without = stats.norm.pdf(x, scale=sigma)
            mixed = (1 - rate) * without + rate * stats.norm.pdf(x, loc=1, scale=sigma)
            return float(max(mixed - math.exp(epsilon) * without, 0.0))

        return float(integrate.quad(positive_part, -2, 14, limit=500)[0] - delta)

    assert pld_epsilon([PrivacyEvent(sigma, rate)], delta) == pytest.approx(
        optimize.brentq(excess, 0.1, 12), rel=1e-3
    )


def test_truncation_costs_little_and_never_gains() -> None:
    plain = pld_epsilon([PrivacyEvent(1.0, 0.01, 1000)], 1e-5)
    capped = pld_epsilon([PrivacyEvent(1.0, 0.01, 1000, max_batch=150, examples=10_000)], 1e-5)

    assert capped == pytest.approx(1.8305, abs=5e-4)
    assert capped > plain


def test_shuffled_epochs_claim_no_amplification() -> None:
    assert pld_epsilon([PrivacyEvent(1.0, 1.0, 10)], 1e-5) == pytest.approx(17.9, abs=0.05)


def test_the_coarse_grid_only_ever_rounds_up() -> None:
    for event in (PrivacyEvent(1.0, 0.01, 1000), PrivacyEvent(2.0, 0.1, 50), PrivacyEvent(3.0, 1.0, 4)):
        fine, coarse = pld_epsilon([event], 1e-5), pld_epsilon([event], 1e-5, interval=COARSE)
        assert fine <= coarse <= fine * 1.01


def test_nothing_released_costs_nothing() -> None:
    assert claim([], 1e-5) == Claim(0.0, 1e-5, 0.0)


def test_merge_adds_steps_of_equal_events_in_one_order() -> None:
    one, other = PrivacyEvent(1.0, 0.1, 3), PrivacyEvent(2.0, 0.1, 4)

    assert merge([one, other, one]) == merge([one, one, other])
    assert sorted(event.steps for event in merge([one, other, one])) == [4, 6]


def test_composition_does_not_depend_on_how_steps_are_grouped() -> None:
    split = [PrivacyEvent(1.0, 0.01, 400), PrivacyEvent(1.0, 0.01, 600)]

    assert pld_epsilon(split, 1e-5) == pld_epsilon([PrivacyEvent(1.0, 0.01, 1000)], 1e-5)


@pytest.mark.parametrize(
    "event", [PrivacyEvent(1.0, 0.01, 1000), PrivacyEvent(2.0, 0.1, 100), PrivacyEvent(5.0, 1.0, 4)]
)
def test_the_attack_lies_below_the_claim_and_close_to_it(event: PrivacyEvent) -> None:
    reached, claimed = attack_epsilon(event, 1e-5), claim([event], 1e-5).epsilon

    assert 0.6 * claimed < reached <= claimed


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_claim_that_another_computation_contradicts_is_refused(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = accounting.pld_epsilon
    monkeypatch.setattr(accounting, "pld_epsilon", lambda *a, **k: factor * honest(*a, **k))

    with pytest.raises(FedftError, match="accountants disagree") as caught:
        claim([PrivacyEvent(2.0, 0.1, 100)], 1e-5)

    assert caught.value.code == "FEDFT-8003"


def test_truncated_sampling_has_no_renyi_bound() -> None:
    assert claim([PrivacyEvent(4.0, 0.1, 10, max_batch=150, examples=1000)], 1e-5).rdp_epsilon is None


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 1 / 1000, 2e-3, math.nan])
def test_delta_must_stay_below_one_over_n(delta: float) -> None:
    with pytest.raises(FedftError) as caught:
        check_delta(delta, 1000)

    assert caught.value.code == "FEDFT-8001"


def test_delta_just_below_one_over_n_passes() -> None:
    check_delta(np.nextafter(1 / 1000, 0), 1000)


@pytest.mark.parametrize(
    "fields",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"sample_rate": 0.0},
        {"sample_rate": 1.01},
        {"steps": 0},
        {"steps": 1.5},
        {"max_batch": 10},
        {"examples": 10},
        {"max_batch": 0, "examples": 10},
    ],
)
def test_events_out_of_range_are_refused(fields: dict[str, float]) -> None:
    values: dict[str, Any] = {"noise_multiplier": 1.0, **fields}
    with pytest.raises(FedftError) as caught:
        PrivacyEvent(**values)

    assert caught.value.code == "FEDFT-8002"


def test_events_survive_storage() -> None:
    event = PrivacyEvent(1.0, 0.01, 5, max_batch=10, examples=500)

    assert PrivacyEvent(**event.as_dict()) == event
    assert pickle.loads(pickle.dumps(event)) == event
    assert PrivacyEvent(1.0).as_dict() == {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 1}


def test_unsampled_releases_of_different_noise_are_one_of_their_joint_precision() -> None:
    """Gaussian mechanisms compose to a Gaussian one: 1/σ² = Σ 1/σᵢ² (Dong, Roth and Su 2022)."""
    parts = [PrivacyEvent(10.0, steps=50), PrivacyEvent(4.0), PrivacyEvent(25.0, steps=3)]
    joint = PrivacyEvent((50 / 100 + 1 / 16 + 3 / 625) ** -0.5)
    assert pld_epsilon(parts, 1e-5) == pytest.approx(pld_epsilon([joint], 1e-5), abs=1e-9)
    sampled = PrivacyEvent(1.0, 0.01, 100)
    assert pld_epsilon([*parts, sampled], 1e-5) == pytest.approx(
        pld_epsilon([joint, sampled], 1e-5), abs=1e-9
    )
