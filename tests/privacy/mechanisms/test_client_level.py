import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from fedft.errors import FedftError
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.mechanisms.client_level import AdaptiveClip, ClientLevelMechanism, clip_delta
from fedft.privacy.mechanisms.gaussian import GaussianMechanism, Mechanism
from fedft.privacy.mechanisms.noise import NoiseSource
from tests.privacy.sources import NoNoise


def _mechanism(*, noise: NoiseSource | None = None, **changes: Any) -> ClientLevelMechanism:
    settings: dict[str, Any] = {"max_norm": 1.0, "noise_multiplier": 2.0, "cohort": 10.0, "noise": noise}
    return ClientLevelMechanism(6, **{**settings, **changes})


def _delta(norm: float, seed: int = 0) -> Tensor:
    direction = torch.randn(6, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = direction / direction.norm()
    return unit * norm


def test_clients_weigh_the_same_and_the_denominator_is_fixed() -> None:
    mechanism = _mechanism(noise=NoNoise())
    deltas = [_delta(0.5, 1), _delta(0.9, 2), _delta(0.1, 3)]
    for delta in deltas:
        mechanism.add(delta[None])

    torch.testing.assert_close(mechanism.release(), sum(deltas) / 10, rtol=1e-5, atol=1e-6)
    assert (mechanism.release() == 0).all()


def test_a_sum_kept_elsewhere_gives_the_same() -> None:
    one, other = _mechanism(noise=NoNoise()), _mechanism(noise=NoNoise())
    rows = torch.stack([_delta(0.9, seed) for seed in range(4)])
    one.add(rows)

    assert torch.equal(one.release(), other.release(rows.double().sum(0)))


def test_it_is_a_mechanism_like_that_of_a_client() -> None:
    rows = torch.stack([_delta(0.9, seed) for seed in range(4)])
    settings: dict[str, Any] = {"max_norm": 1.0, "noise_multiplier": 2.0, "noise": NoNoise()}
    mechanisms: list[Mechanism] = [
        ClientLevelMechanism(6, cohort=10.0, **settings),
        GaussianMechanism(6, denominator=10.0, **settings),
    ]
    for mechanism in mechanisms:
        mechanism.add(rows.clone())

    torch.testing.assert_close(mechanisms[0].release(), mechanisms[1].release(), rtol=1e-5, atol=1e-6)


def test_noise_has_the_rounds_scale() -> None:
    mechanism = ClientLevelMechanism(100_000, max_norm=0.5, noise_multiplier=2.0, cohort=10.0)

    assert stats.kstest((mechanism.release() / (2.0 * mechanism.limit / 10)).numpy(), "norm").pvalue > 1e-6


@pytest.mark.parametrize(("norm", "unclipped"), [(0.2, True), (1.7, False)])
def test_clients_clip_the_whole_update_and_say_so(norm: float, unclipped: bool) -> None:
    clipped, bit = clip_delta(_delta(norm), 1.0)

    assert bit is unclipped
    assert float(clipped.norm()) == pytest.approx(min(norm, 1.0), rel=2e-5)
    _mechanism().add(clipped[None])


def test_noise_covers_what_a_code_may_add_to_the_bound() -> None:
    mechanism = _mechanism()

    mechanism.add(_delta(mechanism.limit * (1 - 1e-6))[None])

    assert mechanism.limit == pytest.approx(1.001)


def _refused(delta: Tensor) -> str:
    mechanism = _mechanism(noise=NoNoise())
    with pytest.raises(FedftError) as caught:
        mechanism.add(delta)
    assert (mechanism.release() == 0).all()
    return caught.value.code


def test_an_update_above_the_bound_is_refused() -> None:
    assert _refused(_delta(1.01)[None]) == "FEDFT-8503"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_refused(bad: float) -> None:
    assert _refused(torch.tensor([[0.0, bad, 0.0, 0.0, 0.0, 0.0]])) == "FEDFT-8502"


@pytest.mark.parametrize("shape", [(6,), (1, 5), (2, 7), (1, 1, 6)])
def test_an_update_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    assert _refused(torch.zeros(shape)) == "FEDFT-8505"


def test_a_round_costs_one_sampled_release() -> None:
    assert _mechanism(sample_rate=0.1).event() == PrivacyEvent(2.0, 0.1, 1)
    assert _mechanism(adaptive=AdaptiveClip(0.5, 0.2, 5.0)).event() == PrivacyEvent(2.0)


def test_updates_and_bits_together_cost_the_rounds_multiplier() -> None:
    adaptive = AdaptiveClip(0.5, 0.2, 3.0)
    mechanism = _mechanism(adaptive=adaptive)

    updates, bits = PrivacyEvent(mechanism._update_multiplier), PrivacyEvent(adaptive.count_noise / 0.5)

    assert pld_epsilon([updates, bits], 1e-5) == pytest.approx(
        pld_epsilon([PrivacyEvent(2.0)], 1e-5), rel=1e-3
    )


@pytest.mark.parametrize("start", [0.01, 100.0])
def test_the_bound_converges_to_the_quantile_of_the_norms(start: float) -> None:
    mechanism = _mechanism(
        max_norm=start,
        noise=NoNoise(),
        cohort=50.0,
        adaptive=AdaptiveClip(quantile=0.5, rate=0.5, count_noise=2.0),
    )
    for _ in range(80):
        for client in range(50):
            clipped, unclipped = clip_delta(_delta(1.0 + client / 50, client), mechanism.max_norm)
            mechanism.add(clipped[None])
            mechanism.note(unclipped)
        mechanism.release()

    assert mechanism.max_norm == pytest.approx(1.5, abs=0.05)


def test_bits_are_noised() -> None:
    bounds = []
    for _ in range(300):
        mechanism = _mechanism(adaptive=AdaptiveClip(0.5, 1.0, 2.0))
        mechanism.release()
        bounds.append(-math.log(mechanism.max_norm) * 10 / 2.0)

    assert stats.kstest(bounds, "norm").pvalue > 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"max_norm": 0.0},
        {"cohort": math.nan},
        {"adaptive": AdaptiveClip(1.5, 0.1, 5.0)},
        {"adaptive": AdaptiveClip(0.5, 0.0, 5.0)},
        {"adaptive": AdaptiveClip(0.5, 0.1, 0.0)},
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FedftError) as caught:
        _mechanism(**changes)
    assert caught.value.code == "FEDFT-8501"


def test_noise_out_of_range_is_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-8002"):
        _mechanism(noise_multiplier=0.0)


@pytest.mark.parametrize("count_noise", [0.5, 1.0])
def test_count_noise_that_leaves_none_is_refused(count_noise: float) -> None:
    with pytest.raises(FedftError) as caught:
        _mechanism(adaptive=AdaptiveClip(0.5, 0.2, count_noise))
    assert caught.value.code == "FEDFT-8504"
