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


def _faults() -> list[type[Engine]]:
    return sorted(Reference.__subclasses__(), key=lambda kind: kind.__name__)


BROKEN = _faults()
