"""Which examples enter a step, and what that choice may claim.

A sampler and its accounting event belong together: `event` states exactly what `batches` does, so a claim of
amplification cannot outlive a change of the sampling. Batches may be empty; noise is added all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedft.errors import Code, FedftError
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.mechanisms.noise import SecureNoise, WordSource

Indices = npt.NDArray[np.int64]


class Sampler(Protocol):
    """Draws batches of example indices.

    Attributes:
        expected_batch: the fixed denominator of every step's mean.

    """

    expected_batch: float

    def batches(self, steps: int) -> Iterator[Indices]:
        """Yield `steps` arrays of ascending indices, each (batch,) int64, possibly empty."""
        ...

    def event(self, noise_multiplier: float, steps: int) -> PrivacyEvent:
        """Return what `steps` noised batches of one `batches(steps)` call cost."""
        ...


class PoissonSampler:
    """Every example enters every batch by its own coin, with probability expected_batch / examples.

    Assumption of the claim: nobody outside learns which examples were drawn, nor how many.
    """

    def __init__(self, examples: int, expected_batch: float, source: WordSource | None = None) -> None:
        _check_sizes(examples, expected_batch)
        self.examples = examples
        self.expected_batch = expected_batch
        self.sample_rate = expected_batch / examples
        self._source = source or SecureNoise()

    def batches(self, steps: int) -> Iterator[Indices]:
        """Yield `steps` independent batches."""
        for _ in range(steps):
            yield self._draw()

    def event(self, noise_multiplier: float, steps: int) -> PrivacyEvent:
        """Return `steps` Poisson-sampled Gaussian releases."""
        return PrivacyEvent(noise_multiplier, self.sample_rate, steps)

    def _draw(self) -> Indices:
        # The last word below the threshold; rounding down never exceeds the rate that is claimed.
        last = math.floor(self.sample_rate * 2**64) - 1
        return np.flatnonzero(self._source.words(self.examples) <= np.uint64(max(last, 0)))


class TruncatedPoissonSampler:
    """Poisson sampling whose batches are cut to `max_batch` by a uniform choice, for bounded memory.

    The cut couples the examples, which the event accounts for (arXiv 2508.15089). A cap of 1.5 times the
    expected batch costs next to nothing.
    """

    def __init__(
        self, examples: int, expected_batch: float, max_batch: int, source: WordSource | None = None
    ) -> None:
        self._source = source or SecureNoise()
        self._poisson = PoissonSampler(examples, expected_batch, self._source)
        if max_batch < expected_batch:
            raise FedftError(
                Code.BATCH_SIZE_INVALID,
                f"max_batch is {max_batch}, below the expected batch of {expected_batch:g}",
                hint="1.5 times the expected batch costs next to nothing in epsilon",
            )
        self.examples = examples
        self.expected_batch = expected_batch
        self.max_batch = max_batch

    def batches(self, steps: int) -> Iterator[Indices]:
        """Yield `steps` independent batches of at most `max_batch` examples."""
        for batch in self._poisson.batches(steps):
            yield batch if len(batch) <= self.max_batch else self._cut(batch)

    def event(self, noise_multiplier: float, steps: int) -> PrivacyEvent:
        """Return `steps` truncated Poisson-sampled Gaussian releases."""
        rate = self._poisson.sample_rate
        return PrivacyEvent(noise_multiplier, rate, steps, max_batch=self.max_batch, examples=self.examples)

    def _cut(self, batch: Indices) -> Indices:
        order = np.argsort(self._source.words(len(batch)), kind="stable")
        return np.sort(batch[order[: self.max_batch]])


class ShuffledSampler:
    """Batches of a fixed size from shuffled epochs; the claim uses no amplification at all.

    An example is in one batch of an epoch, so an epoch costs one unsampled Gaussian release.
    """

    def __init__(self, examples: int, batch_size: int, source: WordSource | None = None) -> None:
        _check_sizes(examples, batch_size)
        self.examples = examples
        self.expected_batch: float = batch_size
        self._size = batch_size
        self._source = source or SecureNoise()

    def batches(self, steps: int) -> Iterator[Indices]:
        """Yield `steps` batches; every call starts a new epoch, as `event` assumes."""
        per_epoch = self._batches_per_epoch()
        for step in range(steps):
            if step % per_epoch == 0:
                order = np.argsort(self._source.words(self.examples), kind="stable")
            start = step % per_epoch * self._size
            yield np.sort(order[start : start + self._size])

    def event(self, noise_multiplier: float, steps: int) -> PrivacyEvent:
        """Return one unsampled Gaussian release for every epoch that is begun."""
        return PrivacyEvent(noise_multiplier, 1.0, math.ceil(steps / self._batches_per_epoch()))

    def _batches_per_epoch(self) -> int:
        return math.ceil(self.examples / self._size)


def _check_sizes(examples: int, batch: float) -> None:
    if not 0 < batch <= examples:
        raise FedftError(
            Code.BATCH_SIZE_INVALID,
            f"a batch of {batch:g} cannot be drawn from {examples} examples",
            hint="0 < batch <= examples",
        )
