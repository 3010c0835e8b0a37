"""Whether the noise is what was claimed: its size and shape on every parameter, and nothing shared."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from fedft.privacy.audit.engine import Engine, MakeEngine, Setting
from fedft.privacy.audit.memory import most_remembered, most_shared, repeated_rows
from fedft.privacy.audit.report import Finding
from fedft.privacy.audit.sensitivity import Silence

SIGNIFICANCE = 1e-7
_Draws = npt.NDArray[np.float64]


def attack_noise_law(make: MakeEngine, *, releases: int) -> Iterator[Finding]:
    """Look at releases from batches without any gradient, which should be noise alone, and at larger ones.

    Measured values are -log10 of p-values, Bonferroni-corrected where there are many.
    """
    setting = Setting(noise_multiplier=1.3)
    one, other = make(setting, None), make(setting, None)
    fresh = _noise(other, setting, 0, releases)
    for parts in (0, 1, 5, 20):
        draws = _noise(one, setting, parts, releases)
        if parts == 0:  # both engines start here, so a shared seed gives both the same stream
            yield _finding("noise shared by two clients", most_shared(draws, fresh))
        for what, p_value in _p_values(draws):
            yield _finding(f"{what}, {parts} virtual batches", p_value)
    for claimed in (setting, Setting(layout=(40,), max_norm=3.0, noise_multiplier=0.6, denominator=64)):
        for size in (1, 40):
            for scale in (0.5, 100.0):
                draws = _noise_on(make, claimed, size, scale, releases // 5)
                what = f"{size} samples of {scale:g} bounds, {len(claimed.layout)} layers"
                yield _finding(f"size of the noise, {what}", _size(draws))
    yield _finding("tails of the noise", _tails(make))


def _noise_on(make: MakeEngine, setting: Setting, size: int, scale: float, releases: int) -> _Draws:
    """The same of a batch of equal samples: what differs from the release of an engine without noise."""
    rows = torch.zeros(size, setting.dimension)
    rows[:, 0] = scale * setting.max_norm
    engine, quiet = make(setting, None), make(setting, Silence())
    found = [setting.in_clips(engine.release([rows]) - quiet.release([rows])) for _ in range(releases)]
    noise: _Draws = (torch.stack(found) / setting.noise_multiplier).numpy()
    return noise


def _tails(make: MakeEngine) -> float:
    """p-value of the counts beyond 3 to 4.5 deviations in a million parameters; a cut tail has none."""
    setting = Setting(layout=(1_000_000,))
    draws = np.abs(_noise(make(setting, None), setting, 1, 1).ravel())
    limits = (3.0, 3.5, 4.05, 4.2, 4.5)
    each = [_counted(int((draws > at).sum()), draws.size, 2 * stats.norm.sf(at)) for at in limits]
    return len(limits) * min(each)


def _counted(hits: int, trials: int, rate: float) -> float:
    return float(stats.binomtest(hits, trials, rate).pvalue)


def _noise(engine: Engine, setting: Setting, parts: int, releases: int) -> _Draws:
    """(releases, d) noise in units of its claimed deviation."""
    batches = [torch.zeros(2, setting.dimension)] * parts
    rows = [setting.in_clips(engine.release(batches)) for _ in range(releases)]
    noise: _Draws = (torch.stack(rows) / setting.noise_multiplier).numpy()
    return noise


def _p_values(draws: _Draws) -> Iterator[tuple[str, float]]:
    releases, dimension = draws.shape
    yield "size of the noise", _size(draws)
    each = stats.chi2.cdf((draws**2).sum(0), releases)
    yield "size of the noise, one parameter", dimension * min(_two_sided(p) for p in each)
    drift = np.abs(draws.mean(0)) * np.sqrt(releases)
    yield "mean of the noise, one parameter", dimension * 2 * float(stats.norm.sf(drift.max()))
    yield "shape of the noise", float(stats.kstest(draws.ravel(), "norm").pvalue)
    yield "noise repeated by two releases", repeated_rows(draws)
    yield "noise shared by two releases", most_remembered(draws)
    yield "noise shared by two parameters", _most_correlated(draws)


def _size(draws: _Draws) -> float:
    return _two_sided(stats.chi2.cdf((draws**2).sum(), draws.size))


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
