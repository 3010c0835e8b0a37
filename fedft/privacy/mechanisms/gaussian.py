"""The Gaussian mechanism: bounded contributions go in, one noised mean comes out.

The same mechanism stands at a client, where a unit is an example, and at the server, where a unit is a client
(`fedft.privacy.mechanisms.client_level`).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.clipping import FLAT, ClippingKind, LocalCounts, clip_weights, norm_weights
from fedft.privacy.mechanisms.noise import NoiseSource, SecureNoise, add_gaussian


class Mechanism(Protocol):
    """Turns the contributions of single units into a release that says little about any of them.

    Attributes:
        noise_multiplier: for the accounting event of a release.
        dimension: length d of a contribution.

    """

    noise_multiplier: float
    dimension: int

    def add(self, rows: Tensor) -> None:
        """Take in (units, d) float32 contributions; the rows may be overwritten."""
        ...

    def release(self) -> Tensor:
        """Return (d,) float32 on the CPU and start afresh; works with no contributions at all."""
        ...


class GaussianMechanism:
    """Clip each unit's vector to `max_norm`, sum, add N(0, (σ C)²) once, divide by a fixed number.

    Guarantee: one release is a Gaussian mechanism of multiplier σ for adding, removing or zeroing one unit,
    if units reach it by the sampling that the accounting event states and nothing of them leaves otherwise.

    Args:
        dimension: length d of a contribution, over all tensors.
        max_norm: L2 bound C of one unit's whole contribution.
        noise_multiplier: σ, noise standard deviation over C.
        denominator: fixed before the run, such as the expected batch size; never the actual count.
        clipping: how contributions are brought within the bound.
        noise: for tests; the default is the secure source.

    Raises:
        FedftError: FEDFT-8501 for a value out of range.

    """

    def __init__(
        self,
        dimension: int,
        *,
        max_norm: float,
        noise_multiplier: float,
        denominator: float,
        clipping: ClippingKind = FLAT,
        noise: NoiseSource | None = None,
    ) -> None:
        for name, value in (
            ("dimension", dimension),
            ("max_norm", max_norm),
            ("noise_multiplier", noise_multiplier),
            ("denominator", denominator),
        ):
            if not 0 < value < math.inf:
                raise FedftError(
                    Code.MECHANISM_SETTING_INVALID, f"{name} is {value} and must be a positive number"
                )
        self.dimension = dimension
        self.max_norm = max_norm
        self.noise_multiplier = noise_multiplier
        self.denominator = denominator
        self.local_counts = LocalCounts()
        self._clipping = clipping
        self._noise = noise or SecureNoise()
        self._sum: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Clip (units, d) float32 contributions and add them up; the rows may be overwritten.

        Raises:
            FedftError: FEDFT-8505 for rows of another length.

        """
        if rows.dim() != 2 or rows.shape[1] != self.dimension:
            raise FedftError(
                Code.CONTRIBUTION_SHAPE_MISMATCH,
                f"contributions of shape {tuple(rows.shape)}, expected (units, {self.dimension})",
            )
        weights = clip_weights(rows, self.max_norm, self.local_counts, self._clipping)
        self._add((weights @ rows).double())

    def add_outer(self, left: Tensor, right: Tensor) -> None:
        """Clip contributions that are outer products, and add them up; no contribution is written out.

        What a linear layer's gradient is made of: unit i gives `left[i] ⊗ right[i]`, flattened, whose norm is
        the product of the two norms. Those that are not finite count as zero.

        Args:
            left: (units, a) float32.
            right: (units, b) float32, with a·b the dimension.

        Raises:
            FedftError: FEDFT-8505 for factors of another shape.

        """
        if len(left) != len(right) or left.shape[1] * right.shape[1] != self.dimension:
            raise FedftError(
                Code.CONTRIBUTION_SHAPE_MISMATCH,
                f"factors of shape {tuple(left.shape)} and {tuple(right.shape)} make no contributions of "
                f"{self.dimension} numbers",
            )
        norms = torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)
        weights = norm_weights(norms, self.max_norm, self.local_counts, self._clipping)
        usable = weights > 0
        if not usable.all():  # what is not finite would not become zero by a weight of zero
            left, right, weights = left[usable], right[usable], weights[usable]
        self._add(((weights[:, None] * left).T @ right).flatten().double())

    def _add(self, total: Tensor) -> None:
        self._sum = total if self._sum is None else self._sum + total

    def release(self) -> Tensor:
        """Return the noised mean, (d,) float32 on the CPU, and start afresh; noise is always added."""
        nothing = torch.zeros(self.dimension, dtype=torch.float64)
        total, self._sum = nothing if self._sum is None else self._sum.cpu(), None
        noised = add_gaussian(total, self.noise_multiplier * self.max_norm, self._noise)
        return (noised / self.denominator).float()
