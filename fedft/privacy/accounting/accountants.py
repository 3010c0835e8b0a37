"""From what was released to (ε, δ): privacy loss distributions for the claim, Rényi DP as a cross-check.

The claim is for neighbouring data sets in which one example is replaced by one that contributes nothing
("replace special": the number of examples is public, which the fixed sampling rate already says). For
Gaussian noise its ε equals that of adding or removing one example.

Composition covers any list of events whose parameters were not chosen from the released values; a run's
parameters are therefore fixed before its first round.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.privacy_accountant import NeighboringRelation
from opacus.accountants.analysis import rdp
from scipy import stats

from fedft.errors import Code, FedftError
from fedft.privacy.accounting.events import Claim, PrivacyEvent, merge

FINE, COARSE = 1e-4, 1e-3
"""Widths of the privacy-loss grid. Both round ε up; the coarse one by under 1 % where ε > 1."""

_RDP_ORDERS = [1 + x / 10 for x in range(1, 100)] + [*range(12, 64), 80, 96, 128, 192, 256, 512, 1024]


def pld_epsilon(events: Iterable[PrivacyEvent], delta: float, *, interval: float = FINE) -> float:
    """Return ε at `delta` of all events together, by composing privacy loss distributions.

    Source: Koskela et al. (AISTATS 2020); Doroshenko et al. (PETS 2022), in dp-accounting; truncated
    Poisson sampling by arXiv 2508.15089.
    """
    merged = _join_unsampled(merge(events))
    if not merged:
        return 0.0
    if min(event.noise_multiplier for event in merged) < 0.3:
        interval = max(interval, COARSE)  # wide distributions: the fine grid costs gigabytes, gains 1e-4
    parts = [_distribution(event, interval) for event in merged]
    return float(functools.reduce(lambda a, b: a.compose(b), parts).get_epsilon_for_delta(delta))


def _join_unsampled(events: list[PrivacyEvent]) -> list[PrivacyEvent]:
    """Make one release of all Gaussian ones without sampling: 1/σ² = Σ 1/σᵢ², exactly."""
    plain = [event for event in events if event.sample_rate == 1 and event.max_batch is None]
    if not plain:
        return events
    precision = sum(event.steps / event.noise_multiplier**2 for event in plain)
    return [PrivacyEvent(1 / math.sqrt(precision)), *(event for event in events if event not in plain)]


def _distribution(event: PrivacyEvent, interval: float) -> Any:
    return _one_release(replace(event, steps=1), interval).self_compose(event.steps)


@functools.lru_cache(maxsize=64)
def _one_release(event: PrivacyEvent, interval: float) -> Any:
    if event.max_batch is not None:
        return pld.from_truncated_subsampled_gaussian_mechanism(
            dataset_size=event.examples,
            sampling_probability=event.sample_rate,
            truncated_batch_size=event.max_batch,
            noise_multiplier=event.noise_multiplier,
            value_discretization_interval=interval,
            neighboring_relation=NeighboringRelation.REPLACE_SPECIAL,
        )
    return pld.from_gaussian_mechanism(
        standard_deviation=event.noise_multiplier,
        sampling_prob=event.sample_rate,
        value_discretization_interval=interval,
        neighboring_relation=NeighboringRelation.REPLACE_SPECIAL,
    )


def rdp_epsilon(events: Iterable[PrivacyEvent], delta: float) -> float | None:
    """Return ε at `delta` by Opacus' Rényi accountant; None where truncated sampling rules it out."""
    merged = merge(events)
    if any(event.max_batch is not None for event in merged):
        return None
    if not merged:
        return 0.0
    curve = sum(event.steps * _renyi_curve(event.sample_rate, event.noise_multiplier) for event in merged)
    return float(rdp.get_privacy_spent(orders=_RDP_ORDERS, rdp=curve, delta=delta)[0])


@functools.lru_cache(maxsize=256)
def _renyi_curve(sample_rate: float, noise_multiplier: float) -> Any:
    return rdp.compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=_RDP_ORDERS)


def attack_epsilon(event: PrivacyEvent, delta: float) -> float:
    """Return an ε that `event` exceeds at `delta`, since this attack reaches it: a floor for any accountant.

    The attack adds up all releases along one unit's direction and compares with a threshold: without the
    unit the sum is N(0, T σ²), with it N(Binomial(T, q), T σ²).
    """
    spread = event.noise_multiplier * math.sqrt(event.steps)
    taken = stats.binom(event.steps, event.sample_rate)
    low, high = taken.ppf(1e-15), taken.ppf(1 - 1e-12)
    counts = np.arange(max(low, 0), high + 1)
    thresholds = np.linspace(-8 * spread, high + 8 * spread, 400)
    without = stats.norm.sf(thresholds / spread)
    hits = stats.norm.sf((thresholds[:, None] - counts) / spread) @ taken.pmf(counts)
    gain = np.log(np.maximum(hits - delta, 1e-300)) - np.log(np.maximum(without, 1e-300))
    return max(0.0, float(gain[without > 1e-290].max()))


ACCOUNTANT = f"pld, dp-accounting {version('dp-accounting')}"
"""What computes ε here, as statements name it."""


def claim(events: Iterable[PrivacyEvent], delta: float, *, enough: float = -1.0) -> Claim:
    """Return what `events` cost at `delta`, after checking it against two other computations.

    Args:
        events: everything that was released.
        delta: the δ of the statement.
        enough: where ε stays at or below this, a coarse grid will do: it only rounds up, and is ten times
            faster.

    Raises:
        FedftError: FEDFT-8003 where the claim lies above the Rényi bound, or below what an attack reaches.

    """
    merged = merge(events)
    epsilon = pld_epsilon(merged, delta, interval=COARSE) if enough >= 0 else math.inf
    rounded_up = epsilon <= enough
    if not rounded_up:
        epsilon = pld_epsilon(merged, delta)
    above = rdp_epsilon(merged, delta)
    if above is not None:
        below = max((attack_epsilon(event, delta) for event in merged), default=0.0)
        loose_enough = rounded_up or epsilon <= above * 1.02 + 0.05
        if not (loose_enough and epsilon >= below * (1 - 1e-6) - 1e-6):
            raise FedftError(
                Code.EPSILON_CONTRADICTED,
                f"the accountants disagree: loss distributions give epsilon {epsilon:.5g}, "
                f"the Renyi bound is {above:.5g} and an attack reaches {below:.5g}",
                hint="do not rely on this claim; check the installed dp-accounting and opacus",
            )
    return Claim(epsilon, delta, above)
