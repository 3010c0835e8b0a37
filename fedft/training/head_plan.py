"""How many steps a head deserves, from theory alone: no record is looked at."""

from __future__ import annotations

import math

FEWEST, MOST = 30, 3000
"""Plain steps of all rounds: with fewer a head has hardly moved from zero, more bring little."""

_NOISE = 0.5
"""Noise of a logit, in nats, at which the steps end with two classes."""


def final_noise(classes: int) -> float:
    """Return the noise of a logit, in nats, at which a head of K classes ends: ½ √(log₂ K).

    To be sure of one class of K its logit must be some log K above the others; the largest of K noisy ones is
    some √(log K) deviations above them. The ratio grows with √(log K). The half is by experience.
    """
    return _NOISE * math.sqrt(math.log2(classes))


def plain_steps(steps: int, momentum: float) -> float:
    """Return how many steps without momentum go as far as these with it, from rest on a constant gradient.

    That is the sum of (1 - βʲ)/(1 - β) over j = 1 … steps.
    """
    beta = momentum
    return (steps - beta * (1 - beta**steps) / (1 - beta)) / (1 - beta)


def proposed_head_steps(
    sigma: float, *, examples: int, clients: int, classes: int, rounds: int, momentum: float
) -> int:
    """Return the full-batch steps of a round with which the noise of a logit ends at ``final_noise``.

    T plain steps at rate K, which together are one release of noise multiplier σ, leave a weight with noise
    of standard deviation K T σ / (n √m), with n records at each of m clients. On features of length 1 that
    is the noise of a logit.

    Args:
        sigma: noise multiplier of all steps together, as one release.
        examples: n.
        clients: m.
        classes: K.
        rounds: over which the steps are spread; momentum starts afresh in each.
        momentum: β.

    """
    wanted = final_noise(classes) * examples * math.sqrt(clients) / (classes * sigma)
    wanted = min(max(wanted, FEWEST), MOST) / rounds
    steps = 1
    while plain_steps(steps + 1, momentum) <= wanted:
        steps += 1
    return steps
