"""Bounds apart: blocks of a contribution, each clipped and noised for itself, under one claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.clipping import FLAT, ClippingKind, LocalCounts
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.privacy.mechanisms.noise import NoiseSource, SecureNoise


@dataclass(frozen=True)
class Block:
    """Parameters whose part of a gradient has a bound of its own.

    Attributes:
        parameters: of the block.
        max_norm: L2 bound C_b of a sample's part in them.
        share: a_b, of a step's squared signal-to-noise ratio; those of all blocks add up to 1.

    """

    parameters: tuple[Tensor, ...]
    max_norm: float
    share: float


def block_noise(noise_multiplier: float, share: float) -> float:
    """Return the noise multiplier σ/√a of a block: releases of σ/√a_b with Σ a_b = 1 are one of σ."""
    return noise_multiplier / math.sqrt(share)


class BlockMechanism:
    """A `Mechanism` (see `gaussian`) of one Gaussian mechanism for each block.

    Guarantee: a release is a Gaussian mechanism of multiplier σ for adding, removing or zeroing one unit. All
    blocks are of the same draw of units. Block b is a release of σ_b = σ/√a_b, and Gaussian releases with
    independent noise compose exactly, ``1/σ² = Σ 1/σ_b²`` (McMahan et al. 2018, arXiv 1812.06210, section 4).

    Args:
        blocks: which entries of a contribution belong to a block, (k,) int64, and the block. Together they
            are every entry once.
        noise_multiplier: σ of a release.
        denominator: see `GaussianMechanism`.
        clipping: how each block is brought within its bound.
        noise: for tests; the default is the secure source.

    Raises:
        FedftError: FEDFT-8501 for a value out of range, shares that do not add up to 1, entries that are left
            out or stand in two blocks.

    """

    def __init__(
        self,
        blocks: Sequence[tuple[Tensor, Block]],
        *,
        noise_multiplier: float,
        denominator: float,
        clipping: ClippingKind = FLAT,
        noise: NoiseSource | None = None,
    ) -> None:
        self._places = [places for places, _ in blocks]
        joined = torch.cat(self._places)
        self.dimension = len(joined)
        shares = [block.share for _, block in blocks]
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
            raise FedftError(
                Code.MECHANISM_SETTING_INVALID,
                f"shares of blocks are {shares} and must be positive, 1 in all",
            )
        if not torch.equal(joined.sort().values, torch.arange(self.dimension)):
            raise FedftError(
                Code.MECHANISM_SETTING_INVALID, "blocks must hold every entry of a contribution once"
            )
        self.noise_multiplier = noise_multiplier
        source = noise or SecureNoise()
        self._mechanisms = [
            GaussianMechanism(
                len(places),
                max_norm=block.max_norm,
                noise_multiplier=block_noise(noise_multiplier, block.share),
                denominator=denominator,
                clipping=clipping,
                noise=source,
            )
            for places, block in blocks
        ]

    @property
    def local_counts(self) -> LocalCounts:
        """What clipping saw, a unit counted once for each block; private."""
        seen = [mechanism.local_counts for mechanism in self._mechanisms]
        return LocalCounts(
            sum(each.units for each in seen),
            sum(each.clipped for each in seen),
            sum(each.non_finite for each in seen),
        )

    def add(self, rows: Tensor) -> None:
        """Clip each block of (units, d) float32 contributions, and add them up."""
        for places, mechanism in zip(self._places, self._mechanisms, strict=True):
            mechanism.add(rows[:, places.to(rows.device)])

    def release(self) -> Tensor:
        """Return the noised mean, (d,) float32 on the CPU, and start afresh."""
        released = torch.empty(self.dimension)
        for places, mechanism in zip(self._places, self._mechanisms, strict=True):
            released[places] = mechanism.release()
        return released
