"""How far one sample can move what is noised: the engine runs without noise on neighbouring batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fedft.privacy.audit.engine import MakeEngine, Setting
from fedft.privacy.audit.report import Finding

TOLERANCE = 1e-4
"""Rounding of float32 sums and of the release's grid, far below what a fault of clipping does."""

_Batches = list[Tensor]


def attack_sensitivity(make: MakeEngine, *, cases: int) -> Iterator[Finding]:
    """Compare batches with and without one adversarial sample, for several bounds and layouts."""
    for setting in (Setting(), Setting(layout=(40,), max_norm=3.0), Setting(layout=(8,) * 9, denominator=64)):
        engine = make(setting, Silence())
        generator = torch.Generator().manual_seed(0)
        worst = 0.0
        for case in range(cases):
            without, sample = _case(setting, case, generator)
            base = engine.release(without)
            for with_it in _insertions(without, sample):
                moved = setting.in_clips(engine.release(with_it) - base).norm()
                worst = max(worst, float(moved)) if torch.isfinite(moved) else math.inf
        for without, with_it in _aligned(setting):
            moved = setting.in_clips(engine.release(with_it) - engine.release(without)).norm()
            worst = max(worst, float(moved)) if torch.isfinite(moved) else math.inf
        what = f"movement by one sample over the bound, {len(setting.layout)} layers"
        yield Finding("sensitivity", what, worst, 1 + TOLERANCE)


def _aligned(setting: Setting) -> Iterator[tuple[_Batches, _Batches]]:
    """Twenty samples of one direction and two lengths, and one that tips what is typical among them."""
    for short, long in ((0.01, 0.9), (0.5, 50.0)):
        rows = torch.zeros(20, setting.dimension)
        rows[:10, 0], rows[10:, 0] = short * setting.max_norm, long * setting.max_norm
        for sample in (rows[:1], rows[10:11], -rows[10:11]):
            yield [rows], [torch.cat([rows, sample])]


def _case(setting: Setting, case: int, generator: torch.Generator) -> tuple[_Batches, Tensor]:
    """A batch of 0 to 6 samples in virtual batches, and a sample meant to move the sum far."""
    sizes = [[], [3], [2, 4], [1, 1, 1], [5]][case % 5]
    scale = [1e-3, 1.0, 100.0][case % 3] * setting.max_norm
    batches = [torch.randn(size, setting.dimension, generator=generator) * scale for size in sizes]
    return batches, _adversary(setting, case, generator, batches)


def _adversary(setting: Setting, case: int, generator: torch.Generator, batches: _Batches) -> Tensor:
    spread = torch.randn(setting.dimension, generator=generator)
    ends = torch.tensor(setting.layout).cumsum(0)
    layer = case % len(setting.layout)
    one_layer = spread.clone()
    one_layer[int(ends[layer]) :] = 0.0
    one_layer[: int(ends[layer]) - setting.layout[layer]] = 0.0
    against = -sum((rows.sum(0) for rows in batches), torch.zeros(setting.dimension))
    poisoned = spread.clone()
    poisoned[case % setting.dimension] = [math.nan, math.inf, 3e38][case % 3]
    kinds = [spread * 1e4, spread.sign(), one_layer * 1e4, against * 1e4 + spread, poisoned, spread * 1e-2]
    return kinds[case % len(kinds)] * setting.max_norm


def _insertions(batches: _Batches, sample: Tensor) -> Iterator[_Batches]:
    """The sample as a virtual batch of its own, and within each of the others, first and last."""
    yield [*batches, sample[None]]
    for index, rows in enumerate(batches):
        for order in ([sample[None], rows], [rows, sample[None]]):
            yield [*batches[:index], torch.cat(order), *batches[index + 1 :]]


class Silence:
    """A noise source without noise."""

    def normal(self, count: int) -> Tensor:
        """Return zeros."""
        return torch.zeros(count, dtype=torch.float64)
