"""What noise costs that many clients add in shares: Rényi bounds of the sum of discrete Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dp_accounting.rdp import rdp_privacy_accountant

from fedft.errors import Code, FedftError
from fedft.secagg.discrete_gaussian import MAX_VARIANCE

ORDERS = [1 + x / 10 for x in range(1, 100)] + [*range(11, 64), 80, 96, 128, 192, 256, 512, 1024]


@dataclass(frozen=True)
class NoiseShares:
    """Independent discrete Gaussians from several clients, added to a vector of integers.

    The neighbouring relation is that of one unit's contribution taken away, or replaced by zeros.

    Args:
        shares: number of clients whose noise counts.
        variance: σ² of one share, from 1 on.
        dimension: length of the vector.
        norm: largest L2 norm of one unit's contribution, in steps of the grid.

    Raises:
        FedftError: FEDFT-8828 for a value out of range.

    """

    shares: int
    variance: int
    dimension: int
    norm: float

    def __post_init__(self) -> None:
        good = self.shares >= 1 and 1 <= self.variance <= MAX_VARIANCE and self.dimension >= 1
        if not (good and 0 < self.norm < math.inf):
            raise FedftError(Code.NOISE_SHARE_INVALID, f"noise that cannot be accounted for: {self}")

    @property
    def gap(self) -> float:
        """τ: by how much, in the logarithm, a coordinate's law differs at most from one discrete Gaussian's.

        Kairouz, Liu and Steinke (ICML 2021, arXiv 2102.06387), theorem 1.
        """
        return 10 * sum(
            math.exp(-2 * math.pi**2 * self.variance * k / (k + 1)) for k in range(1, self.shares)
        )

    def renyi(self, order: float) -> float:
        """Give the Rényi divergence of one release at an order (there, proposition 14)."""
        scale = self.norm / math.sqrt(self.shares * self.variance)
        one_norm = min(self.norm * math.sqrt(self.dimension), self.norm**2)  # of integers
        tau, dimension = self.gap, self.dimension
        cross = 2 * tau * one_norm / math.sqrt(self.shares * self.variance)
        return min(
            order / 2 * scale**2 + tau * dimension,
            order / 2 * (scale**2 + cross + tau**2 * dimension),
            order / 2 * (scale + tau * math.sqrt(dimension)) ** 2,
        )

    def epsilon(self, steps: int, delta: float) -> float:
        """Give ε at δ of ``steps`` releases together, by dp-accounting's conversion from Rényi DP."""
        curve = [steps * self.renyi(order) for order in ORDERS]
        return float(rdp_privacy_accountant.compute_epsilon(ORDERS, curve, delta)[0])


def least_variance(target: NoiseShares, steps: int, epsilon: float, delta: float) -> int:
    """Give the least variance of a share with which ``steps`` releases cost at most ε at δ.

    Args:
        target: shares, dimension and norm; its variance is not looked at.
        steps: number of releases.
        epsilon: to keep to.
        delta: of the claim.

    Raises:
        FedftError: FEDFT-8828 when no variance that can be drawn is enough.

    """
    low, high = 0, MAX_VARIANCE
    if replace(target, variance=high).epsilon(steps, delta) > epsilon:
        raise FedftError(
            Code.NOISE_SHARE_INVALID,
            f"no noise of {target.shares} clients keeps {steps} rounds within epsilon {epsilon:g}",
            hint="fewer rounds, a coarser grid, or a larger epsilon",
        )
    while high - low > 1:
        middle = (low + high) // 2
        enough = replace(target, variance=middle).epsilon(steps, delta) <= epsilon
        low, high = (low, middle) if enough else (middle, high)
    return high
