"""Whether the noise is what was claimed: its size and shape on every parameter, and nothing shared."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from fedft.privacy.audit.engine import Engine, MakeEngine, Setting
from fedft.privacy.audit.report import Finding

SIGNIFICANCE = 1e-7
_Draws = npt.NDArray[np.float64]


def attack_noise_law(make: MakeEngine, *, releases: int) -> Iterator[Finding]:
    """Look at releases from batches without any gradient, which should be noise alone.

    Measured values are -log10 of p-values, Bonferroni-corrected where there are many.
    """
    setting = Setting(noise_multiplier=1.3)
    one, other = make(setting, None), make(setting, None)
    fresh = _noise(other, setting, 0, releases)
    for parts in (0, 1, 3):
        draws = _noise(one, setting, parts, releases)
        if parts == 0:  # both engines start here, so a shared seed gives both the same stream
            yield _finding("noise shared by two clients", _correlation(draws, fresh))
        for what, p_value in _p_values(draws):
            yield _finding(f"{what}, {parts} virtual batches", p_value)


def _noise(engine: Engine, setting: Setting, parts: int, releases: int) -> _Draws:
    """(releases, d) noise in units of its claimed deviation."""
    batches = [torch.zeros(2, setting.dimension)] * parts
    rows = [setting.in_clips(engine.release(batches)) for _ in range(releases)]
    noise: _Draws = (torch.stack(rows) / setting.noise_multiplier).numpy()
    return noise


def _p_values(draws: _Draws) -> Iterator[tuple[str, float]]:
    releases, dimension = draws.shape
    yield "size of the noise", _two_sided(stats.chi2.cdf((draws**2).sum(), draws.size))
    each = stats.chi2.cdf((draws**2).sum(0), releases)
    yield "size of the noise, one parameter", dimension * min(_two_sided(p) for p in each)
    drift = np.abs(draws.mean(0)) * np.sqrt(releases)
    yield "mean of the noise, one parameter", dimension * 2 * float(stats.norm.sf(drift.max()))
    yield "shape of the noise", float(stats.kstest(draws.ravel(), "norm").pvalue)
    yield "noise shared by two releases", _correlation(draws[:-1], draws[1:])
    yield "noise shared by two parameters", _most_correlated(draws)


def _correlation(first: _Draws, second: _Draws) -> float:
    """p-value of the inner product under independence, an equal value anywhere counting as certain."""
    if np.isclose(first, second, rtol=0, atol=1e-9).mean() > 1e-3:
        return 0.0
    inner = float((first * second).sum() / np.sqrt(first.size))
    return 2 * float(stats.norm.sf(abs(inner)))


def _most_correlated(draws: _Draws) -> float:
    """p-value of the largest correlation between two columns; a column without noise counts as certain."""
    if (draws.std(0) == 0).any():
        return 0.0
    pairs = np.atleast_2d(np.corrcoef(draws.T))[np.triu_indices(draws.shape[1], 1)]
    largest = min(float(np.abs(pairs).max()), 1 - 1e-12)
    t = largest * math.sqrt((len(draws) - 2) / (1 - largest**2))
    return len(pairs) * 2 * float(stats.t.sf(t, len(draws) - 2))


def _two_sided(lower_tail: float) -> float:
    return 2 * min(float(lower_tail), 1 - float(lower_tail))


def _finding(what: str, p_value: float) -> Finding:
    surprise = -math.log10(max(min(p_value, 1.0), 1e-300)) + 0.0
    return Finding("noise law", f"-log10 p of the {what}", surprise, -math.log10(SIGNIFICANCE))
