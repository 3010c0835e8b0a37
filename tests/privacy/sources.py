"""Deterministic sources for tests; nothing in the package can select them."""

from __future__ import annotations

import numpy as np
import torch

from fedft.privacy.mechanisms.noise import Words


class SeededNoise:
    """A seeded source that behaves as `SecureNoise` does, for tests alone."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def words(self, count: int) -> Words:
        return self._rng.integers(0, 2**64, size=count, dtype=np.uint64)

    def normal(self, count: int) -> torch.Tensor:
        return torch.from_numpy(self._rng.standard_normal(count))


class NoNoise:
    """Zeros, to look at what a mechanism noises."""

    def normal(self, count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.float64)
