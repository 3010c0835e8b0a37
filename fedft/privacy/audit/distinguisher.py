"""An attacker who sees one release and must say whether a sample was in the batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.audit.bounds import epsilon_lower, mu_lower, rate_lower, rate_upper
from fedft.privacy.audit.engine import Engine, MakeEngine, Setting
from fedft.privacy.audit.report import Finding

DELTA = 1e-5
_Scores = npt.NDArray[np.float64]


def attack_distinguisher(make: MakeEngine, *, runs: int) -> Iterator[Finding]:
    """Run both worlds many times; bounds hold with four standard errors.

    The threshold is chosen on one half of the runs and judged on the other.
    """
    setting = Setting(noise_multiplier=1.0)
    sample = torch.randn(setting.dimension, generator=torch.Generator().manual_seed(7))
    direction = (sample / sample.norm()).double()
    others = torch.zeros(2, setting.dimension)
    engine = make(setting, None)

    def scores(batch: Tensor) -> _Scores:
        return np.array([_score(engine, setting, batch, direction) for _ in range(runs)])

    without, with_it = scores(others), scores(torch.cat([others, 1e3 * sample[None]]))
    half = runs // 2
    middle = (without[:half].mean() + with_it[:half].mean()) / 2
    mu = mu_lower(*_rates(without[half:], with_it[half:], middle))
    yield Finding("one-step distinguisher", "lower bound on mu", mu, 1 / setting.noise_multiplier)

    far = np.quantile(with_it[:half], 0.95)
    epsilon = epsilon_lower(*_rates(without[half:], with_it[half:], far), DELTA)
    claimed = pld_epsilon([PrivacyEvent(setting.noise_multiplier)], DELTA)
    yield Finding("one-step distinguisher", f"lower bound on epsilon at delta {DELTA:g}", epsilon, claimed)


def _score(engine: Engine, setting: Setting, batch: Tensor, direction: Tensor) -> float:
    return float(setting.in_clips(engine.release([batch])) @ direction)


def _rates(without: _Scores, with_it: _Scores, threshold: float) -> tuple[float, float]:
    """Upper bound on the false positive rate, lower bound on the true positive rate."""
    false_positives, true_positives = int((without > threshold).sum()), int((with_it > threshold).sum())
    return rate_upper(false_positives, len(without)), rate_lower(true_positives, len(with_it))
