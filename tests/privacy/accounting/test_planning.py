import pytest

from fedft.errors import FedftError
from fedft.privacy.accounting import planning
from fedft.privacy.accounting.accountants import COARSE, FINE, pld_epsilon
from fedft.privacy.accounting.events import MAX_STEPS, Budget, PrivacyEvent, merge
from fedft.privacy.accounting.planning import calibrate, plan


@pytest.mark.parametrize(("epsilon", "sigma"), [(1.0, 1.4147), (3.0, 0.8136), (8.0, 0.5864)])
def test_reference_noise_multipliers(epsilon: float, sigma: float) -> None:
    found = calibrate(Budget(epsilon, 1e-5), PrivacyEvent(1.0, 0.01, 1000))

    assert found == pytest.approx(sigma, rel=1e-3)
    assert pld_epsilon([PrivacyEvent(found, 0.01, 1000)], 1e-5) <= epsilon


@pytest.mark.parametrize(
    ("budget", "event", "spent"),
    [
        (Budget(4.0, 1e-5), PrivacyEvent(1.0, 0.02, 200), [PrivacyEvent(1.0, 0.01, 500)]),
        (Budget(12.0, 1e-5), PrivacyEvent(1.0, 0.2, 50), []),
        (Budget(0.2, 1e-6), PrivacyEvent(1.0, 0.01, 100), []),
        (Budget(1.0, 1e-5), PrivacyEvent(1.0, 1.0, 5), []),
        (Budget(4.0, 1e-4), PrivacyEvent(1.0, 0.1, 60, max_batch=60, examples=400), []),
    ],
)
def test_the_target_is_met_and_nearly_used_up(
    budget: Budget, event: PrivacyEvent, spent: list[PrivacyEvent]
) -> None:
    sigma = calibrate(budget, event, spent=spent)

    def total(multiplier: float) -> float:
        planned = PrivacyEvent(**{**event.as_dict(), "noise_multiplier": multiplier})
        return pld_epsilon([*spent, planned], budget.delta, interval=FINE if budget.epsilon < 3 else COARSE)

    assert total(sigma) <= budget.epsilon
    assert total(sigma * 0.997) > budget.epsilon


def test_noise_far_below_the_target_is_never_accounted_for_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million steps at noise 1 would take the exact way minutes, and more than that gigabytes."""
    exact: list[float] = []

    def counted(events: list[PrivacyEvent], delta: float, *, interval: float) -> float:
        exact.append(pld_epsilon(events, delta, interval=interval))
        return exact[-1]

    monkeypatch.setattr(planning, "pld_epsilon", counted)
    sigma = calibrate(Budget(2.0, 1e-5), PrivacyEvent(1.0, 0.5, 10_000))

    assert 1.99 <= pld_epsilon([PrivacyEvent(sigma, 0.5, 10_000)], 1e-5, interval=FINE) <= 2.0
    assert max(exact) < 10


def test_more_steps_than_are_accounted_for_are_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-8002"):
        PrivacyEvent(1.0, 0.5, MAX_STEPS + 1)
    with pytest.raises(FedftError, match="FEDFT-8002"):
        merge([PrivacyEvent(1.0, 0.5, MAX_STEPS), PrivacyEvent(1.0, 0.5, 1)])


def test_a_generous_budget_ends_at_the_smallest_multiplier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_SMALLEST_SIGMA", 0.7)

    assert calibrate(Budget(100.0, 1e-5), PrivacyEvent(1.0, 0.01, 1)) <= 0.7


def test_a_spent_budget_cannot_be_met() -> None:
    with pytest.raises(FedftError) as caught:
        calibrate(Budget(1.0, 1e-5), PrivacyEvent(1.0, 0.01, 10), spent=[PrivacyEvent(1.0, 0.01, 1000)])

    assert caught.value.code == "FEDFT-8004"


def test_plan_shows_one_row_for_each_batch_and_target() -> None:
    rows = plan(
        epsilons=[3.0, 8.0],
        delta=1e-5,
        examples=6400,
        expected_batches=[64, 256],
        steps=100,
        parameters=10_000,
    )

    assert [(row.expected_batch, row.epsilon) for row in rows] == [
        (64, 3.0),
        (64, 8.0),
        (256, 3.0),
        (256, 8.0),
    ]
    first = rows[0]
    assert first.sample_rate == 0.01
    assert first.noise_multiplier is not None
    assert first.noise_to_clip == pytest.approx(first.noise_multiplier * 100 / 64)
    assert rows[1].noise_multiplier is not None
    assert rows[2].noise_multiplier is not None
    assert rows[1].noise_multiplier < first.noise_multiplier < rows[2].noise_multiplier


def test_plan_marks_what_cannot_be_had() -> None:
    (row,) = plan(
        epsilons=[0.5],
        delta=1e-5,
        examples=6400,
        expected_batches=[64],
        steps=10,
        parameters=10,
        spent=[PrivacyEvent(1.0, 0.01, 1000)],
    )

    assert row.noise_multiplier is None
    assert row.noise_to_clip is None


@pytest.mark.parametrize(("delta", "batch", "code"), [(1e-2, 8, "FEDFT-8001"), (1e-5, 200, "FEDFT-8002")])
def test_plan_refuses_what_no_run_may_ask(delta: float, batch: int, code: str) -> None:
    with pytest.raises(FedftError) as caught:
        plan(epsilons=[1.0], delta=delta, examples=100, expected_batches=[batch], steps=1, parameters=1)

    assert caught.value.code == code
