"""The privacy audit's attacks on the distributed mechanism, and on ones that are each broken in one way."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedft.privacy.audit import Engine, Setting
from fedft.privacy.audit.distinguisher import attack_distinguisher
from fedft.privacy.audit.noise_law import attack_noise_law
from fedft.privacy.audit.report import Finding
from fedft.privacy.audit.sensitivity import attack_sensitivity
from fedft.privacy.mechanisms.noise import NoiseSource
from fedft.privacy.mechanisms.sampling import Indices
from fedft.secagg.discrete_gaussian import discrete_gaussian
from fedft.secagg.distributed_noise import DistributedNoise
from fedft.secagg.masks import Words
from fedft.secagg.random_words import secure_words

SITES = 2
STEPS_IN_BOUND = 2000
SEED = b"round"
Integers = NDArray[np.int64]


class DistributedEngine:
    """Two sites with half of the examples each; what is released is the sum of their digits, unpacked.

    The bound of the audit's setting is the one that the integers keep to, so the clip is a little lower.
    """

    clip = 0.998

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        self.setting = setting
        step = setting.max_norm / STEPS_IN_BOUND
        deviation = setting.noise_multiplier * STEPS_IN_BOUND
        # Rounding half of the coordinates up adds a quarter of a step squared for each, padding included.
        rounding = (setting.dimension + 4096) / (4 * STEPS_IN_BOUND**2)
        clip = self.clip * math.sqrt(1 - rounding)
        variance = math.ceil(deviation**2 / SITES)
        self.mechanism = DistributedNoise(
            setting.dimension,
            setting.max_norm * clip,
            step,
            SITES,
            variance,
            reach=1 << 20,
            room=9 * math.isqrt(variance),
        )
        assert self.mechanism.norm <= STEPS_IN_BOUND or self.clip > 1
        self._stand_in = noise

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        examples = [row for rows in virtual_batches for row in rows.numpy()]
        sums = np.zeros(self.mechanism.dimension, dtype=np.int64)
        for site in range(SITES):
            total = np.zeros(self.mechanism.dimension, dtype=np.int64)
            for example in examples[site::SITES]:
                total += self._integers(example)
            sums += self._digits(total, site)
        summed = self.mechanism.total(sums, SITES, SEED)
        return torch.from_numpy(summed / self.setting.denominator).float()

    def draw(self, examples: int) -> Indices:
        raise NotImplementedError

    def _integers(self, example: NDArray[np.float32]) -> Integers:
        # One example is rounded alike in both worlds of an attack, as the bound allows any rounding.
        generator = np.random.default_rng(zlib.crc32(example.tobytes()))
        with np.errstate(over="ignore", invalid="ignore"):
            return self.mechanism.integers(example, SEED, generator)

    def _digits(self, total: Integers, site: int) -> Integers:
        if self._stand_in is None:
            return self.mechanism.digits(total, self._words(site))
        noise = self._stand_in.normal(self.mechanism.dimension).numpy()
        integers: Integers = np.rint(noise * math.sqrt(self.mechanism.variance)).astype(np.int64)
        return total + integers + self.mechanism.half

    def _words(self, site: int) -> Callable[[int], Words]:
        return secure_words


class OneSiteWithoutNoise(DistributedEngine):
    """A site that leaves its share out, which `honest` did not allow for."""

    def _digits(self, total: Integers, site: int) -> Integers:
        return total + self.mechanism.half if site else super()._digits(total, site)


class OneNoiseForAll(DistributedEngine):
    """Both sites draw from one seed, so their noise is not independent."""

    def _words(self, site: int) -> Callable[[int], Words]:
        rng = np.random.default_rng(self.calls)
        self.calls += site
        return lambda count: rng.integers(0, 2**64, size=count, dtype=np.uint64)

    calls = 0


class NoClip(DistributedEngine):
    clip = 3.0


class RoundedUp(DistributedEngine):
    """Rounds every coordinate away from zero: the norm grows beyond the bound."""

    def _integers(self, example: NDArray[np.float32]) -> Integers:
        integers = super()._integers(example)
        rounded_up: Integers = integers + 30 * np.sign(integers)
        return rounded_up


class NoiseBeforeTheSum(DistributedEngine):
    """Adds noise of the right size to the example of the first site alone: nothing where there is none."""

    def _digits(self, total: Integers, site: int) -> Integers:
        if total.any() or self._stand_in is not None:
            return super()._digits(total, site)
        return total + self.mechanism.half


def failed(findings: Iterable[Finding]) -> list[str]:
    return [f"{one.what}: {one.measured:.3g} > {one.allowed:.3g}" for one in findings if not one.passed]


@pytest.mark.slow
def test_the_mechanism_withstands_the_attacks() -> None:
    assert failed(attack_sensitivity(DistributedEngine, cases=15)) == []
    assert failed(attack_noise_law(DistributedEngine, releases=80)) == []
    assert failed(attack_distinguisher(DistributedEngine, runs=120)) == []


@pytest.mark.parametrize("engine", [NoClip, RoundedUp])
def test_a_bound_that_is_exceeded_is_seen(engine: Callable[..., Engine]) -> None:
    assert failed(attack_sensitivity(engine, cases=6))


@pytest.mark.slow
@pytest.mark.parametrize("engine", [OneSiteWithoutNoise, OneNoiseForAll, NoiseBeforeTheSum])
def test_noise_that_is_missing_or_shared_is_seen(engine: Callable[..., Engine]) -> None:
    assert failed(attack_noise_law(engine, releases=60))


def test_the_engines_noise_is_the_mechanisms() -> None:
    engine = DistributedEngine(Setting())
    zeros = np.zeros(engine.mechanism.dimension, dtype=np.int64)

    digits = engine._digits(zeros, 0) - engine.mechanism.half
    other = discrete_gaussian(digits.size, engine.mechanism.variance)
    assert digits.std() == pytest.approx(other.std(), rel=0.1)
