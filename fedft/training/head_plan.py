"""How many steps a head deserves, from theory alone: no record is looked at."""

from __future__ import annotations

import math

FEWEST, MOST = 30, 300
"""Steps below which a head has hardly moved from zero, and beyond which they bring little."""


def proposed_head_steps(sigma: float, *, examples: int, clients: int, classes: int) -> int:
    """Return the full-batch steps with which the noise of one logit reaches about one nat.

    T steps at rate K, which together are one release of noise multiplier σ, leave a weight with noise of
    standard deviation K T σ / (n √m), with n records at each of m clients. On features of length 1 that is
    the noise of a logit. It is set to 1, about what separates the classes.

    Args:
        sigma: noise multiplier of all steps together, as one release.
        examples: n.
        clients: m.
        classes: K.

    """
    steps = examples * math.sqrt(clients) / (classes * sigma)
    return round(min(max(steps, FEWEST), MOST))
