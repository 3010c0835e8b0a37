"""Lower bounds on ε and μ from the successes of an attack."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

ONE_SIDED_4_SE = float(stats.norm.sf(4))


def rate_upper(hits: int, trials: int, error: float = ONE_SIDED_4_SE) -> float:
    """Return the Clopper-Pearson upper bound on a rate, wrong with probability `error`."""
    return 1.0 if hits >= trials else float(stats.beta.ppf(1 - error, hits + 1, trials - hits))


def rate_lower(hits: int, trials: int, error: float = ONE_SIDED_4_SE) -> float:
    """Return the Clopper-Pearson lower bound on a rate, wrong with probability `error`."""
    return 1.0 - rate_upper(trials - hits, trials, error)


def epsilon_lower(false_positive_upper: float, true_positive_lower: float, delta: float) -> float:
    """Return the ε that (ε, δ)-DP needs for a test with these rates (Kairouz et al. 2015)."""
    if true_positive_lower <= delta or false_positive_upper <= 0:
        return 0.0
    return max(0.0, math.log((true_positive_lower - delta) / false_positive_upper))


def mu_lower(false_positive_upper: float, true_positive_lower: float) -> float:
    """Return the μ that Gaussian DP needs for a test with these rates (Dong et al. 2022)."""
    return max(0.0, float(stats.norm.ppf(true_positive_lower) - stats.norm.ppf(false_positive_upper)))


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the probability of so many correct guesses about coin-flipped canaries under (ε, δ)-DP.

    Source: Steinke, Nasr and Jagielski (NeurIPS 2023), theorem 5.2.
    """
    rate = 1 / (1 + math.exp(-epsilon))
    law = stats.binom(guesses, rate)
    below = np.cumsum(law.pmf(np.arange(correct - 1, -1, -1)))  # P[correct - i <= X < correct], i = 1, 2, …
    worst = float((below / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, float(law.sf(correct - 1)) + worst * delta * 2 * canaries)


def one_run_epsilon_lower(
    canaries: int, guesses: int, correct: int, delta: float, error: float = 1e-3
) -> float:
    """Return the largest ε that the guesses reject at significance `error`."""
    return _largest(lambda epsilon: one_run_p_value(canaries, guesses, correct, epsilon, delta) < error)


def _largest(rejected: Callable[[float], bool], top: float = 20.0) -> float:
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, top
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
