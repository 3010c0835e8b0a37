"""Gaussian noise and coin flips from a cryptographically secure source.

No seed reaches this module. Every request takes a fresh AES-256 key from the operating system and expands
it in counter mode, so there is no generator state to share, to fork, to copy or to restore: two clients,
steps or tensors never see the same stream.
"""

from __future__ import annotations

import math
import os
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.uint64]

_TWO_64 = 2.0**-64
_PAIRS_PER_BLOCK = 1 << 15  # keeps the temporaries in the cache
_GRID_BITS = 20


class NoiseSource(Protocol):
    """Where a mechanism takes its noise from; the package has one implementation, `SecureNoise`."""

    def normal(self, count: int) -> torch.Tensor:
        """Return `count` independent N(0, 1) draws, float64, on the CPU."""
        ...


class WordSource(Protocol):
    """Where a sampler takes its coins from; the package has one implementation, `SecureNoise`."""

    def words(self, count: int) -> Words:
        """Return `count` independent uniform 64-bit words."""
        ...


class SecureNoise:
    """AES-256-CTR under a fresh operating-system key for every call; holds no state."""

    def words(self, count: int) -> Words:
        """Return `count` independent uniform 64-bit words."""
        encryptor = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
        return np.frombuffer(encryptor.update(bytes(8 * count)), dtype=np.uint64)

    def normal(self, count: int) -> torch.Tensor:
        """Return `count` independent N(0, 1) draws, float64, by Box and Muller (1958).

        The radius takes a 64-bit uniform, so the tail reaches 9.4 standard deviations; a float32
        generator stops at 5.77, which would cost a floor in δ of up to 8e-5 a release.
        """
        out = torch.empty(count, dtype=torch.float64)
        for start in range(0, count, 2 * _PAIRS_PER_BLOCK):
            block = out[start : start + 2 * _PAIRS_PER_BLOCK]
            block.copy_(_box_muller(self.words(2 * ((len(block) + 1) // 2)))[: len(block)])
        return out


def _box_muller(words: Words) -> torch.Tensor:
    """Map 2 n uniform words to 2 n normal draws; the lower half of the words gives the radii."""
    uniform = torch.from_numpy(words.astype(np.float64))
    radius_words, angle_words = uniform.chunk(2)
    radius = torch.sqrt(-2.0 * torch.log((radius_words + 0.5) * _TWO_64))
    angle = angle_words * (2.0 * math.pi * _TWO_64)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])


def add_gaussian(values: torch.Tensor, std: float, source: NoiseSource) -> torch.Tensor:
    """Return `values + N(0, std² I)`, rounded to a grid of about 2⁻²⁰ std.

    Args:
        values: (n,) float64 on the CPU.
        std: standard deviation, > 0, in the unit of `values`.
        source: where the noise comes from.

    Returns:
        (n,) float64, each a multiple of one power of two, exact in float32 within ±16 std. Each grid
        cell joins some 2³² float64 values, so the low bits of the sum, which otherwise tell which
        inputs are possible (Jin et al., arXiv 2112.05307), do not survive. Rounding is post-processing.

    """
    grid = 2.0 ** (math.floor(math.log2(std)) - _GRID_BITS)
    noised = values + std * source.normal(values.numel())
    return torch.round(noised / grid) * grid
