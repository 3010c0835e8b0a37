"""The audit of a whole training in one run: many canaries, each in or out by a coin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.audit.bounds import one_run_epsilon_lower
from fedft.privacy.audit.engine import MakeEngine, Setting
from fedft.privacy.audit.report import Finding
from fedft.privacy.mechanisms.noise import SecureNoise

DELTA = 1e-7
_STEPS = 20


def attack_one_run(make: MakeEngine, *, canaries: int) -> Iterator[Finding]:
    """Train for 20 steps on canaries that each point along one parameter; guess who was in.

    The claim lies near ε = 2: the bound cannot exceed about 4.5 with 1,000 canaries, so a larger claim would
    leave no room to be caught in. Source: Steinke, Nasr and Jagielski (NeurIPS 2023).
    """
    setting = Setting(
        layout=(canaries // 2, canaries - canaries // 2),
        noise_multiplier=6.0,
        sample_rate=0.5,
        denominator=canaries / 4,
    )
    members = np.flatnonzero(SecureNoise().words(canaries) % np.uint64(2))
    engine = make(setting, None)
    scores = np.zeros(canaries)
    for _ in range(_STEPS):
        drawn = members[engine.draw(len(members))]
        rows = torch.zeros(len(drawn), canaries)
        rows[torch.arange(len(drawn)), torch.from_numpy(drawn)] = 10 * setting.max_norm
        scores += setting.in_clips(engine.release([rows])).numpy()

    order, each_side = np.argsort(scores), 3 * canaries // 10
    is_member = np.isin(order, members)
    correct = int(is_member[-each_side:].sum() + (~is_member[:each_side]).sum())
    found = one_run_epsilon_lower(canaries, 2 * each_side, correct, DELTA)
    claimed = pld_epsilon([PrivacyEvent(setting.noise_multiplier, setting.sample_rate, _STEPS)], DELTA)
    yield Finding("one-run canaries", f"lower bound on epsilon at delta {DELTA:g}", found, claimed)
