"""Exact samples of the discrete Gaussian: probability of x in proportion to exp(-x² / 2σ²) on the integers.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (NeurIPS 2020), algorithms 1
to 3, on arrays. Every coin is a comparison of integers: no floating-point number decides anything, so the
samples have exactly the law that the accounting assumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedft.errors import Code, FedftError
from fedft.secagg.random_words import WordSource, secure_words, uniform_below

MAX_VARIANCE = 1 << 24
_TRIES, _SPARE = 1.8, 64
"""Tries for each missing sample: a little more than it takes on average, so that one turn is enough."""

_FARTHEST = 64
"""Candidates beyond 64 scales are dropped; exactly, one in e²⁰⁰⁰ of them would be taken."""


def discrete_gaussian(count: int, variance: int, source: WordSource = secure_words) -> NDArray[np.int64]:
    """Draw (count,) int64 independent samples with parameter σ² = ``variance``.

    Args:
        count: how many.
        variance: 1 to 2²⁴; the samples' own variance is at most this.
        source: for tests; the default is secure.

    Raises:
        FedftError: FEDFT-8828 for a variance out of range.

    """
    if not 1 <= variance <= MAX_VARIANCE:
        raise FedftError(Code.NOISE_SHARE_INVALID, f"variance {variance} is not between 1 and {MAX_VARIANCE}")
    scale = math.isqrt(variance) + 1

    def some(tries: int) -> NDArray[np.int64]:
        candidates = _collect(tries, lambda n: _discrete_laplace(n, scale, source))
        return candidates[_accept(candidates, variance, scale, source)]

    return _collect(count, some)


def _collect(count: int, some: Callable[[int], NDArray[np.int64]]) -> NDArray[np.int64]:
    """Give the first ``count`` of the independent samples that ``some`` gives of so many tries."""
    parts = []
    missing = count
    while missing > 0:
        parts.append(some(int(_TRIES * missing) + _SPARE))
        missing -= parts[-1].size
    return np.concatenate(parts)[:count]


def _accept(
    candidates: NDArray[np.int64], variance: int, scale: int, source: WordSource
) -> NDArray[np.bool_]:
    """Accept y with probability exp(-(|y| - σ²/t)² / 2σ²), t the scale."""
    near = np.abs(candidates) <= _FARTHEST * scale
    offset = np.where(near, np.abs(candidates), 0) * scale - variance
    exponent = (offset * offset).astype(np.uint64)
    return near & _bernoulli_exp(exponent, 2 * variance * scale * scale, source)


def _discrete_laplace(tries: int, scale: int, source: WordSource) -> NDArray[np.int64]:
    """Try to draw y with probability in proportion to exp(-|y| / scale) (algorithm 2, with s = 1)."""
    low = uniform_below(scale, tries, source)
    low = low[_bernoulli_exp(low, scale, source)].astype(np.int64)
    magnitude = low + scale * _geometric(low.size, source)
    negative = uniform_below(2, low.size, source) == 1
    signed = np.where(negative, -magnitude, magnitude)
    kept: NDArray[np.int64] = signed[~(negative & (magnitude == 0))]
    return kept


def _geometric(count: int, source: WordSource) -> NDArray[np.int64]:
    """Count the successes of coins with probability 1/e before the first failure."""
    successes = np.zeros(count, dtype=np.int64)
    going = np.arange(count)
    while going.size:
        going = going[_bernoulli_exp(np.ones(going.size, dtype=np.uint64), 1, source)]
        successes[going] += 1
    return successes


def _bernoulli_exp(exponent: NDArray[np.uint64], unit: int, source: WordSource) -> NDArray[np.bool_]:
    """Flip coins with probability exp(-exponent / unit) (algorithm 1)."""
    whole, rest = exponent // np.uint64(unit), exponent % np.uint64(unit)
    heads = _bernoulli_exp_below_one(rest, unit, source)
    going = np.flatnonzero(heads & (whole > 0))
    while going.size:
        once = _bernoulli_exp_below_one(np.ones(going.size, dtype=np.uint64), 1, source)
        heads[going[~once]] = False
        whole[going] -= np.uint64(1)
        going = going[once]
        going = going[whole[going] > 0]
    return heads


def _bernoulli_exp_below_one(
    exponent: NDArray[np.uint64], unit: int, source: WordSource
) -> NDArray[np.bool_]:
    """The same for exponents of at most one unit: the parity of the first failure of coins γ/1, γ/2, ..."""
    heads = np.zeros(exponent.size, dtype=np.bool_)
    going = np.arange(exponent.size)
    turn = 1
    while going.size:
        success = uniform_below(unit * turn, going.size, source) < exponent[going]
        heads[going[~success]] = turn % 2 == 1
        going = going[success]
        turn += 1
    return heads
