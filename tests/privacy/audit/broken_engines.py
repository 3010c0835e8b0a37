"""Engines that are each broken in one way, beside the right one that they differ from.

Several are faults that published or popular implementations have had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedft.privacy.audit import Engine, Setting
from fedft.privacy.mechanisms.noise import NoiseSource, SecureNoise
from fedft.privacy.mechanisms.sampling import Indices, PoissonSampler
from tests.privacy.sources import SeededNoise


class Reference:
    """DP-SGD in a few lines of plain arithmetic; every fault below replaces one of its methods."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        self.setting = setting
        self.noise = noise or self.own_noise()
        self.deviation = setting.noise_multiplier * setting.max_norm

    def own_noise(self) -> NoiseSource:
        return SecureNoise()

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        total = torch.zeros(self.setting.dimension, dtype=torch.float64)
        for rows in virtual_batches:
            total += self.clipped_sum(rows.double())
        return self.mean(total + self.draw_noise(virtual_batches), virtual_batches)

    def clipped_sum(self, rows: Tensor) -> Tensor:
        rows = self.finite(rows)
        return (rows * self.factors(rows)).sum(0)

    def finite(self, rows: Tensor) -> Tensor:
        bad = ~torch.isfinite(rows.float().norm(dim=1))
        return torch.where(bad[:, None], 0.0, rows)

    def factors(self, rows: Tensor) -> Tensor:
        return self._scale(rows.norm(dim=1, keepdim=True))

    def _scale(self, norms: Tensor) -> Tensor:
        return (self.setting.max_norm / norms.clamp(min=1e-300)).clamp(max=1.0)

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        return self.deviation * self.noise.normal(self.setting.dimension)

    def mean(self, noised: Tensor, virtual_batches: Sequence[Tensor]) -> Tensor:
        return (noised / self.setting.denominator).float()

    def draw(self, examples: int) -> Indices:
        return next(iter(PoissonSampler(examples, self.setting.sample_rate * examples).batches(1)))

    def layers(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, list(self.setting.layout), dim=-1)


class NoNoiseAtAll(Reference):
    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        return torch.zeros(self.setting.dimension, dtype=torch.float64)


class SlightlyTooLittleNoise(Reference):
    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        return 0.97 * super().draw_noise(virtual_batches)


class UniformNoise(Reference):
    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        words = SecureNoise().words(self.setting.dimension).astype(np.float64)
        return self.deviation * torch.from_numpy((words * 2.0**-64 - 0.5) * 12**0.5)


class BatchClipping(Reference):
    """Clips the gradient of the batch, as ordinary training does."""

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        rows = [self.finite(rows.double()) for rows in virtual_batches]
        total = sum((part.sum(0) for part in rows), torch.zeros(self.setting.dimension, dtype=torch.float64))
        clipped = total * self._scale(total.norm()) * max(sum(map(len, rows)), 1)
        return self.mean(clipped + self.draw_noise(virtual_batches), virtual_batches)


class MicroBatchClipping(Reference):
    """Clips the mean of a virtual batch and counts it for all of its samples."""

    def clipped_sum(self, rows: Tensor) -> Tensor:
        return super().clipped_sum(rows.mean(0, keepdim=True)) * len(rows) if len(rows) else rows.sum(0)


class LayerClipping(Reference):
    """Gives every layer the whole bound."""

    def clipped_sum(self, rows: Tensor) -> Tensor:
        rows = self.finite(rows)
        parts = [layer * self.factors(layer) for layer in self.layers(rows)]
        return torch.cat(parts, dim=1).sum(0)


class NoClipping(Reference):
    def factors(self, rows: Tensor) -> Tensor:
        return torch.ones(len(rows), 1, dtype=torch.float64)


class WrongNorm(Reference):
    """Bounds the largest entry in place of the length."""

    def factors(self, rows: Tensor) -> Tensor:
        return self._scale(rows.abs().amax(dim=1, keepdim=True))


class ForgottenLayer(Reference):
    """Leaves the last layer, say a head, out of the norm and out of the clipping."""

    def clipped_sum(self, rows: Tensor) -> Tensor:
        rows = self.finite(rows)
        factors = self.factors(rows[:, : -max(self.setting.layout[-1] // 2, 1)])
        kept = torch.ones_like(rows)
        kept[:, : -max(self.setting.layout[-1] // 2, 1)] = factors
        return (rows * kept).sum(0)


class NotFiniteLetThrough(Reference):
    def finite(self, rows: Tensor) -> Tensor:
        return rows


class SeedReusedEveryStep(Reference):
    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        return self.deviation * SeededNoise(42).normal(self.setting.dimension)


class SeedSharedByClients(Reference):
    def own_noise(self) -> NoiseSource:
        return SeededNoise(42)


class NoiseOnOneLayer(Reference):
    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        noise = super().draw_noise(virtual_batches)
        noise[self.setting.layout[0] :] = 0.0
        return noise


class OneDrawForAllLayers(Reference):
    """Cuts every layer's noise from the start of one draw."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        draw = super().draw_noise(virtual_batches)
        return torch.cat([draw[:size] for size in self.setting.layout])


class NoiseBeforeAccumulation(Reference):
    """Noises every virtual batch with a share of the noise and sums what is left."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        parts = max(len(virtual_batches), 1)
        first, *others = (super(NoiseBeforeAccumulation, self).draw_noise([]) / parts for _ in range(parts))
        return sum(others, start=first)


class NoNoiseOnEmptyBatches(Reference):
    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        return super().draw_noise(virtual_batches) * float(bool(virtual_batches))


class NoiseThatFollowsTheBatch(Reference):
    """Scales the noise with what was summed instead of with the bound."""

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        total = sum(
            (self.clipped_sum(rows.double()) for rows in virtual_batches),
            torch.zeros(self.setting.dimension, dtype=torch.float64),
        )
        share = (total.norm() / self.setting.max_norm).clamp(max=1.0) if total.any() else 1.0
        return self.mean(total + 0.3 * share * self.draw_noise(virtual_batches), virtual_batches)


class ActualBatchSize(Reference):
    """Divides by the number of samples that happened to be drawn."""

    def mean(self, noised: Tensor, virtual_batches: Sequence[Tensor]) -> Tensor:
        return (noised / max(sum(map(len, virtual_batches)), 1)).float()


class CompressionBeforeNoise(Reference):
    """Ternary compression of the sum: signs of the larger half, one scale."""

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        total = sum(
            (self.clipped_sum(rows.double()) for rows in virtual_batches),
            torch.zeros(self.setting.dimension, dtype=torch.float64),
        )
        kept = total.abs() >= total.abs().median()
        ternary = torch.where(kept, total.sign() * total.abs()[kept].mean(), 0.0)
        return self.mean(ternary + self.draw_noise(virtual_batches), virtual_batches)


class FeedbackBeforeNoise(Reference):
    """Keeps what compression lost and adds it to the next step, all before the noise."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        super().__init__(setting, noise)
        self.residual = torch.zeros(setting.dimension, dtype=torch.float64)

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        total = self.residual.clone()
        for rows in virtual_batches:
            total += self.clipped_sum(rows.double())
        sent = total.sign() * total.abs().mean()
        self.residual = total - sent
        return self.mean(sent + self.draw_noise(virtual_batches), virtual_batches)


class BiasedSampling(Reference):
    """Draws one sample twice as often as the others."""

    def draw(self, examples: int) -> Indices:
        drawn, extra = super().draw(examples), super().draw(examples)
        return np.union1d(drawn, extra[extra == 0])


class TooHighRate(Reference):
    def draw(self, examples: int) -> Indices:
        return next(iter(PoissonSampler(examples, 1.1 * self.setting.sample_rate * examples).batches(1)))


class FixedSizeBatches(Reference):
    """Batches of one size, without replacement."""

    def draw(self, examples: int) -> Indices:
        order = np.argsort(SecureNoise().words(examples))
        return np.sort(order[: round(self.setting.sample_rate * examples)])


class ShuffledEpochs(Reference):
    """Goes through shuffled epochs and claims the amplification of Poisson sampling."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        super().__init__(setting, noise)
        self.left: list[int] = []

    def draw(self, examples: int) -> Indices:
        count = round(self.setting.sample_rate * examples)
        if len(self.left) < count:
            self.left = np.argsort(SecureNoise().words(examples)).tolist()
        drawn, self.left = self.left[:count], self.left[count:]
        return np.sort(np.array(drawn))


class NoiseReusedAtLagTwo(Reference):
    """Draws two rows of noise and uses each twice, in turn."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        super().__init__(setting, noise)
        self.kept: list[Tensor] = []

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        if len(self.kept) == 4:
            self.kept = []
        self.kept.append(self.kept[-2] if len(self.kept) >= 2 else super().draw_noise(virtual_batches))
        return self.kept[-1]


class NoiseReusedMuchLater(Reference):
    """Uses every row of noise again after 400 releases."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        super().__init__(setting, noise)
        self.kept: list[Tensor] = []
        self.at = 0

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        if len(self.kept) < 400:
            self.kept.append(super().draw_noise(virtual_batches))
            return self.kept[-1]
        self.at += 1
        return self.kept[self.at % 400]


class NegatedNoise(Reference):
    """Takes back in every second release what it added in the one before."""

    last: Tensor | None = None

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        if self.last is not None:
            taken, self.last = -self.last, None
            return taken
        self.last = super().draw_noise(virtual_batches)
        return self.last


class SixteenBitSeed(Reference):
    """A fresh seed for every release, but a short one."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        seed = int(SecureNoise().words(1)[0] % np.uint64(65536))
        return self.deviation * SeededNoise(seed).normal(self.setting.dimension)


class PoolOfNoise(Reference):
    """Takes rows at random from 5,000 that were drawn beforehand."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        row = int(SecureNoise().words(1)[0] % np.uint64(5000))
        return self.deviation * SeededNoise(100_000 + row).normal(self.setting.dimension)


class CutTails(Reference):
    """Noise without anything beyond four deviations."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        noise = super().draw_noise(virtual_batches) / self.deviation
        return self.deviation * noise.clamp(-4.0, 4.0)


class TwelveUniforms(Reference):
    """The sum of twelve uniform numbers, which looks normal but for its tails."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        words = SecureNoise().words(12 * self.setting.dimension).astype(np.float64) * 2.0**-64
        return self.deviation * torch.from_numpy(words.reshape(12, -1).sum(0) - 6.0)


class NoNoiseBeyondFourBatches(Reference):
    """Forgets the noise where a step has many virtual batches."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        noise = super().draw_noise(virtual_batches)
        return noise if len(virtual_batches) <= 4 else torch.zeros_like(noise)


class BoundFromTheMedian(Reference):
    """Clips to the median of the batch's norms, which one sample moves for all."""

    def factors(self, rows: Tensor) -> Tensor:
        norms = rows.norm(dim=1, keepdim=True)
        bound = min(float(norms.median()), self.setting.max_norm) if len(rows) else self.setting.max_norm
        factors: Tensor = (bound / norms.clamp(min=1e-300)).clamp(max=1.0)
        return factors


class NoiseScaleFromTheBatch(Reference):
    """Noise for the longest clipped gradient that there is, where there is any."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        norms = [float(rows.double().norm(dim=1).max()) for rows in virtual_batches if len(rows)]
        longest = max(norms, default=0.0)
        scale = min(longest, self.setting.max_norm) / self.setting.max_norm if longest else 1.0
        return super().draw_noise(virtual_batches) * scale


class LessNoiseForLargeBatches(Reference):
    """Takes a tenth of the noise away where the batch is large."""

    def draw_noise(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        large = sum(map(len, virtual_batches)) >= 32
        return super().draw_noise(virtual_batches) * (0.9 if large else 1.0)


class StreamSharedWithADelay(Reference):
    """All clients read one stream of noise, each from another place."""

    made = 0

    def own_noise(self) -> NoiseSource:
        source = SeededNoise(42)
        StreamSharedWithADelay.made += 1
        for _ in range(10 * (StreamSharedWithADelay.made % 7)):
            source.normal(self.setting.dimension)
        return source


class BatchReusedAtLagTwo(Reference):
    """Draws two batches and uses each twice, in turn."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        super().__init__(setting, noise)
        self.kept: list[Indices] = []

    def draw(self, examples: int) -> Indices:
        if len(self.kept) == 4:
            self.kept = []
        self.kept.append(self.kept[-2] if len(self.kept) >= 2 else super().draw(examples))
        return self.kept[-1]


class BatchesThatRemember(Reference):
    """Draws none of what it drew seven batches ago, and more of the rest."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        super().__init__(setting, noise)
        self.kept: list[Indices] = []

    def draw(self, examples: int) -> Indices:
        old = self.kept[-7] if len(self.kept) >= 7 else np.array([], dtype=np.int64)
        fresh = super().draw(examples)
        drawn = np.setdiff1d(fresh, old[::3])
        self.kept = [*self.kept[-7:], drawn]
        return drawn


class BalancedPairs(Reference):
    """Of two neighbours it draws one or none, so that batches are balanced."""

    def draw(self, examples: int) -> Indices:
        uniform = SecureNoise().words(examples).astype(np.float64) * 2.0**-64
        pairs = uniform.reshape(-1, 2)
        chosen = pairs[:, 0] < 2 * self.setting.sample_rate
        drawn: Indices = np.flatnonzero(chosen) * 2 + (pairs[chosen, 1] < 0.5)
        return drawn


def _faults() -> list[type[Engine]]:
    return sorted(Reference.__subclasses__(), key=lambda kind: kind.__name__)


BROKEN = _faults()
