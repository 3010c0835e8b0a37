"""Planning before a run: the noise that meets a budget, and the trade-off as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scipy import optimize

from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import COARSE, FINE, attack_epsilon, pld_epsilon
from fedft.privacy.accounting.events import Budget, PrivacyEvent, check_delta

_SMALLEST_SIGMA, _LARGEST_SIGMA = 0.1, 1e5


def calibrate(target: Budget, event: PrivacyEvent, *, spent: Sequence[PrivacyEvent] = ()) -> float:
    """Return the smallest noise multiplier with which `event` on top of `spent` stays within `target`.

    Args:
        target: (ε, δ) for everything together.
        event: what is planned; its noise multiplier is ignored.
        spent: what the data set has paid already.

    Returns:
        The noise multiplier, at most 0.1 % above the smallest one that meets the target.

    Raises:
        FedftError: FEDFT-8004 where no amount of noise meets the target.

    """

    def excess(log_sigma: float, interval: float) -> float:
        planned = replace(event, noise_multiplier=math.exp(log_sigma))
        reached = attack_epsilon(planned, target.delta)  # far from the target the exact way costs gigabytes
        if reached > target.epsilon:
            return reached - target.epsilon
        return pld_epsilon([*spent, planned], target.delta, interval=interval) - target.epsilon

    # Both grids round ε up. The coarse one is within 0.05 % above ε = 3 and useless below 0.5.
    search = COARSE if target.epsilon >= 0.5 else FINE
    precise = FINE if target.epsilon < 3 else COARSE
    low, high = _bracket(lambda x: excess(x, search), target)
    if low == high:
        return math.exp(low)
    high = _root(lambda x: excess(x, search), low, high)
    if search == precise:
        return math.exp(high)
    low = high - 0.02
    while excess(low, precise) <= 0:
        low -= math.log(2)
    return math.exp(_root(lambda x: excess(x, precise), low, high))


def _bracket(excess: Callable[[float], float], target: Budget) -> tuple[float, float]:
    """Return log σ on both sides of the target, searching outwards from σ = 1; (x, x) at the lower end."""
    x, step = 0.0, math.log(2)
    if excess(x) <= 0:
        while excess(x - step) <= 0:
            x -= step
            if x < math.log(_SMALLEST_SIGMA):
                return x, x
        return x - step, x
    while excess(x + step) > 0:
        x += step
        if x > math.log(_LARGEST_SIGMA):
            raise FedftError(
                Code.BUDGET_INFEASIBLE,
                f"no noise multiplier up to {_LARGEST_SIGMA:g} keeps epsilon at or below {target.epsilon:g}",
                hint="fewer steps, a smaller batch, or a larger budget",
            )
    return x, x + step


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return a point where `falling` is not positive, at most 1e-3 right of its root in [low, high]."""
    x = float(optimize.brentq(falling, low, high, xtol=2e-4)) + 2e-4
    while falling(x) > 0:
        x += 2e-4
    return x


@dataclass(frozen=True)
class PlanRow:
    """One line of a privacy plan.

    Attributes:
        epsilon: the target at the plan's δ.
        expected_batch: mean number of examples in a step.
        steps: steps over the whole run.
        sample_rate: expected_batch over the number of examples.
        noise_multiplier: what meets the target; None where nothing does.
        noise_to_clip: L2 norm of one step's noise over `max_grad_norm`, √d σ / expected_batch.

    """

    epsilon: float
    expected_batch: int
    steps: int
    sample_rate: float
    noise_multiplier: float | None
    noise_to_clip: float | None


def plan(
    *,
    epsilons: Sequence[float],
    delta: float,
    examples: int,
    expected_batches: Sequence[int],
    steps: int,
    parameters: int,
    spent: Sequence[PrivacyEvent] = (),
    event_of: Callable[[int], PrivacyEvent] | None = None,
) -> list[PlanRow]:
    """Return the trade-off table of a run before it starts, one row per (batch, ε).

    Args:
        epsilons: targets, each for everything spent on the data set.
        delta: δ of all targets, below 1/examples.
        examples: number of examples at the site.
        expected_batches: mean batch sizes to compare, each at most `examples`.
        steps: steps of the whole run: rounds times local steps.
        parameters: number of trainable parameters d.
        spent: what the data set has paid already.
        event_of: what the whole run releases at an expected batch; None for Poisson sampling.

    Raises:
        FedftError: FEDFT-8001 (δ), FEDFT-8002 (a batch larger than the data).

    """
    check_delta(delta, examples)
    rows = []
    for batch in expected_batches:
        event = event_of(batch) if event_of else PrivacyEvent(1.0, batch / examples, steps)
        for epsilon in epsilons:
            sigma = _calibrate_or_none(Budget(epsilon, delta), event, spent)
            ratio = None if sigma is None else sigma * math.sqrt(parameters) / batch
            rows.append(PlanRow(epsilon, batch, steps, event.sample_rate, sigma, ratio))
    return rows


def _calibrate_or_none(target: Budget, event: PrivacyEvent, spent: Sequence[PrivacyEvent]) -> float | None:
    try:
        return calibrate(target, event, spent=spent)
    except FedftError as error:
        if error.code is not Code.BUDGET_INFEASIBLE:
            raise
        return None
