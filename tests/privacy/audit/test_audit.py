"""The audit catches every broken engine and leaves the right ones alone."""

import math
import os

import numpy as np
import pytest
import torch
from scipy import stats

from fedft.errors import FedftError
from fedft.privacy.audit import QUICK, AuditReport, DpSgdEngine, Effort, Finding, Setting, audit, bounds
from fedft.privacy.audit.distinguisher import attack_distinguisher
from fedft.privacy.audit.noise_law import attack_noise_law
from fedft.privacy.audit.one_run import attack_one_run
from fedft.privacy.audit.product import (
    BlockEngine,
    ClientEngine,
    MicroBatchEngine,
    RoundEngine,
    SketchEngine,
)
from fedft.privacy.audit.sampling_law import attack_sampling_law
from fedft.privacy.audit.sensitivity import attack_sensitivity
from tests.privacy.audit import broken_engines
from tests.privacy.audit.broken_engines import BROKEN, Reference
from tests.privacy.sources import NoNoise

TESTS = {
    "sensitivity": lambda make: attack_sensitivity(make, cases=QUICK.sensitivity),
    "noise law": lambda make: attack_noise_law(make, releases=QUICK.noise),
    "sampling law": lambda make: attack_sampling_law(make, batches=QUICK.sampling),
    "one-step distinguisher": lambda make: attack_distinguisher(make, runs=QUICK.distinguisher),
    "one-run canaries": lambda make: attack_one_run(make, canaries=QUICK.canaries),
}
BRIEF = Effort(sensitivity=10, noise=80, sampling=400, distinguisher=100, canaries=1000)
"""Enough to see a false alarm; faults are looked for with QUICK, and `make test-long` gives it to all."""

CAUGHT_BY = {
    "NoiseReusedAtLagTwo": "noise law",
    "NoiseReusedMuchLater": "noise law",
    "NegatedNoise": "noise law",
    "SixteenBitSeed": "noise law",
    "PoolOfNoise": "noise law",
    "CutTails": "noise law",
    "TwelveUniforms": "noise law",
    "NoNoiseBeyondFourBatches": "noise law",
    "BoundFromTheMedian": "sensitivity",
    "NoiseScaleFromTheBatch": "noise law",
    "LessNoiseForLargeBatches": "noise law",
    "StreamSharedWithADelay": "noise law",
    "BatchReusedAtLagTwo": "sampling law",
    "BatchesThatRemember": "sampling law",
    "BalancedPairs": "sampling law",
    "ActualBatchSize": "sensitivity",
    "BatchClipping": "sensitivity",
    "BiasedSampling": "sampling law",
    "CompressionBeforeNoise": "sensitivity",
    "FeedbackBeforeNoise": "sensitivity",
    "FixedSizeBatches": "sampling law",
    "ForgottenLayer": "sensitivity",
    "LayerClipping": "sensitivity",
    "MicroBatchClipping": "sensitivity",
    "NoClipping": "sensitivity",
    "NoNoiseAtAll": "noise law",
    "NoNoiseOnEmptyBatches": "noise law",
    "NoiseBeforeAccumulation": "noise law",
    "NoiseOnOneLayer": "noise law",
    "NoiseThatFollowsTheBatch": "noise law",
    "NotFiniteLetThrough": "sensitivity",
    "OneDrawForAllLayers": "noise law",
    "SeedReusedEveryStep": "noise law",
    "SeedSharedByClients": "noise law",
    "ShuffledEpochs": "sampling law",
    "SlightlyTooLittleNoise": "noise law",
    "TooHighRate": "sampling law",
    "UniformNoise": "noise law",
    "WrongNorm": "sensitivity",
}


def test_every_broken_engine_has_its_test() -> None:
    assert sorted(kind.__name__ for kind in BROKEN) == sorted(CAUGHT_BY)


@pytest.mark.parametrize("fault", CAUGHT_BY)
def test_a_broken_engine_is_caught(fault: str) -> None:
    findings = TESTS[CAUGHT_BY[fault]](getattr(broken_engines, fault))

    assert not all(finding.passed for finding in findings)  # the first that fails will do


@pytest.mark.parametrize("test", ["noise law", "one-step distinguisher", "one-run canaries"])
def test_an_engine_without_noise_is_caught_by_every_test_of_releases(test: str) -> None:
    assert not all(finding.passed for finding in TESTS[test](broken_engines.NoNoiseAtAll))


@pytest.mark.parametrize("fault", ["BatchClipping", "NoClipping"])
def test_faults_of_clipping_show_in_one_training_too(fault: str) -> None:
    findings = TESTS["one-run canaries"](getattr(broken_engines, fault))

    assert not all(finding.passed for finding in findings)


RIGHT = (Reference, DpSgdEngine, RoundEngine, MicroBatchEngine, BlockEngine, SketchEngine, ClientEngine)


@pytest.mark.parametrize("engine", RIGHT)
def test_a_right_engine_passes(engine: type) -> None:
    report = audit(engine, BRIEF)

    report.require_passed()
    assert {finding.test for finding in report.findings} == set(TESTS)
    (found,) = [finding for finding in report.findings if finding.test == "one-run canaries"]
    assert found.allowed == pytest.approx(1.901, abs=2e-3)


REPETITIONS = int(os.environ.get("FEDFT_AUDIT_REPETITIONS", "0"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not REPETITIONS, reason="set FEDFT_AUDIT_REPETITIONS, for example to 20")
def test_no_false_alarm_and_no_miss_in_repetitions() -> None:
    for _ in range(REPETITIONS):
        for engine in RIGHT:
            audit(engine, QUICK).require_passed()
        for fault, test in CAUGHT_BY.items():
            findings = TESTS[test](getattr(broken_engines, fault))
            assert not all(finding.passed for finding in findings), fault


def test_the_audited_engine_releases_clipped_sums() -> None:
    setting = Setting()
    rows = torch.randn(4, setting.dimension, generator=torch.Generator().manual_seed(0))

    ours = DpSgdEngine(setting, NoNoise()).release([rows[:3], rows[3:]])

    torch.testing.assert_close(ours, Reference(setting, NoNoise()).release([rows]), rtol=1e-4, atol=1e-5)


def test_a_failed_audit_lists_what_failed() -> None:
    good, bad = Finding("a", "x", 0.5, 1.0), Finding("b", "y", 2.0, 1.0)
    AuditReport((good,), 0.0).require_passed()

    with pytest.raises(FedftError, match="y is 2, at most 1") as caught:
        AuditReport((good, bad), 0.0).require_passed()
    assert caught.value.code == "FEDFT-8701"
    assert "x is" not in caught.value.message


def test_what_is_not_a_number_does_not_pass() -> None:
    assert not Finding("a", "x", math.nan, 1.0).passed


@pytest.mark.parametrize(("hits", "trials"), [(0, 50), (3, 50), (25, 50), (50, 50)])
def test_rate_bounds_are_clopper_and_pearsons(hits: int, trials: int) -> None:
    interval = stats.binomtest(hits, trials).proportion_ci(0.98, method="exact")

    assert bounds.rate_upper(hits, trials, 0.01) == pytest.approx(interval.high)
    assert bounds.rate_lower(hits, trials, 0.01) == pytest.approx(interval.low)


def test_mu_of_exact_rates_is_recovered() -> None:
    for mu in (0.3, 1.0, 2.5):
        assert bounds.mu_lower(float(stats.norm.sf(0.4)), float(stats.norm.sf(0.4 - mu))) == pytest.approx(mu)


def test_epsilon_of_randomised_response_is_recovered() -> None:
    for epsilon in (0.5, 2.0):
        right = math.exp(epsilon) / (1 + math.exp(epsilon))
        assert bounds.epsilon_lower(1 - right, right, 0.0) == pytest.approx(epsilon)


def test_one_run_p_value_of_pure_dp_is_the_binomial_tail() -> None:
    rate = math.e / (1 + math.e)

    expected = float(stats.binom.sf(79, 100, rate))
    assert bounds.one_run_p_value(1000, 100, 80, 1.0, 0.0) == pytest.approx(expected)


def test_one_run_p_value_equals_the_definition() -> None:
    m, r, v, epsilon, delta = 500, 60, 50, 1.2, 1e-4
    rate = 1 / (1 + math.exp(-epsilon))
    pmf = stats.binom.pmf(np.arange(r + 1), r, rate)
    worst = max(pmf[v - i : v].sum() / i for i in range(1, v + 1))

    expected = pmf[v:].sum() + worst * delta * 2 * m
    assert bounds.one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(float(expected))


def test_one_run_bound_rises_with_the_guesses_and_falls_with_delta() -> None:
    found = [bounds.one_run_epsilon_lower(1000, 600, correct, 1e-7) for correct in (300, 400, 500, 600)]

    assert found[0] == 0.0
    assert found == sorted(found)
    assert found[-1] == pytest.approx(4.5, abs=0.1)
    assert bounds.one_run_epsilon_lower(1000, 600, 500, 1e-4) < found[2]
