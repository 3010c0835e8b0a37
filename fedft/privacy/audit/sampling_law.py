"""Whether batches are drawn as claimed: independent coins of one probability."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import stats

from fedft.privacy.audit.engine import MakeEngine, Setting
from fedft.privacy.audit.memory import most_remembered
from fedft.privacy.audit.noise_law import SIGNIFICANCE
from fedft.privacy.audit.report import Finding

_EXAMPLES = 60


def attack_sampling_law(make: MakeEngine, *, batches: int) -> Iterator[Finding]:
    """Count who is drawn, how large batches are, and whether draws know of each other."""
    setting = Setting(sample_rate=0.2)
    engine = make(setting, None)
    rate, taken = setting.sample_rate, np.zeros((batches, _EXAMPLES))
    for row in taken:
        row[engine.draw(_EXAMPLES)] = 1.0

    each = [stats.binomtest(int(count), batches, rate).pvalue for count in taken.sum(0)]
    yield _finding("how often one sample is drawn", _EXAMPLES * min(each))

    standard = (taken - rate) / np.sqrt(rate * (1 - rate))
    sizes = standard.sum(1) / np.sqrt(_EXAMPLES)
    # The variance of sizes is normal with deviation sqrt((kurtosis - 1) / n), close to sqrt(2 / n).
    excess = (1 - 6 * rate * (1 - rate)) / (_EXAMPLES * rate * (1 - rate))
    spread = float((sizes**2).mean() - 1) / np.sqrt((2 + excess) / batches)
    yield _finding("spread of the batch sizes", 2 * float(stats.norm.sf(abs(spread))))

    yield _finding("memory of the batches before", most_remembered(standard))
    yield _finding("two samples drawn together or never", _most_paired(taken, rate))


def _most_paired(taken: npt.NDArray[np.float64], rate: float) -> float:
    """p-value of how often two samples share a batch, of all pairs the least likely."""
    together = (taken.T @ taken)[np.triu_indices(taken.shape[1], 1)].astype(int)
    law = stats.binom(len(taken), rate**2)
    each = 2 * np.minimum(law.cdf(together), law.sf(together - 1))
    return float(len(together) * each.min())


def _finding(what: str, p_value: float) -> Finding:
    surprise = -math.log10(max(min(p_value, 1.0), 1e-300)) + 0.0
    return Finding("sampling law", f"-log10 p of the {what}", surprise, -math.log10(SIGNIFICANCE))
