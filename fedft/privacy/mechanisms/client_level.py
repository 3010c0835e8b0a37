"""Client-level (central) DP at the server: what is hidden is whether a client took part at all.

The server is trusted with the single updates; the public sees noised means. Every client weighs the same and
the denominator is fixed, so neither data set sizes nor drop-outs show. Clipping comes after everything that
the client does to its update, error feedback and compression included, on the values that the server decoded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.mechanisms.clipping import LocalCounts, clip_weights
from fedft.privacy.mechanisms.noise import NoiseSource, SecureNoise, add_gaussian

TOLERANCE = 1e-3
"""By how much, relative, a decoded norm may exceed the bound: a codec's rounding, not a refusal to clip."""


@dataclass(frozen=True)
class AdaptiveClip:
    """Settings of the bound that follows a quantile of the clients' norms (Andrew et al., NeurIPS 2021).

    Attributes:
        quantile: γ, the share of clients whose norm should lie within the bound.
        rate: η, the bound is multiplied by exp(-η (b - γ)) with b the noised share of unclipped clients.
        count_noise: σ_b, standard deviation of the noise on the sum of the bits.

    """

    quantile: float
    rate: float
    count_noise: float


def clip_delta(delta: Tensor, max_norm: float) -> tuple[Tensor, bool]:
    """Clip a client's whole update, (d,) float32; return it and whether it was left alone."""
    rows = delta.detach().clone()[None]
    weight = clip_weights(rows, max_norm, LocalCounts())
    return weight[0] * rows[0], bool(weight[0] == 1)


class ClientLevelMechanism:
    """Bounded updates of equal weight, one Gaussian noise for the round, a fixed denominator.

    A `Mechanism` (see `gaussian`) whose units are clients. An update above `limit` is refused, not
    clipped again, so that the sum can be kept in integers; the noise is scaled to `limit`.

    Guarantee: with clients drawn independently with probability `sample_rate` (1: all of them), a round is
    one sampled Gaussian release of multiplier `noise_multiplier` for adding or removing one client, the
    adaptation of the bound included.

    Args:
        dimension: length d of an update.
        max_norm: L2 bound C of an update; the first one with an adaptive clip.
        noise_multiplier: σ of the round's event.
        cohort: the fixed denominator, such as the expected number of clients.
        sample_rate: probability that a client takes part in a round.
        adaptive: how the bound follows the norms; None keeps it.
        noise: for tests; the default is the secure source.

    Raises:
        FedftError: FEDFT-8501 (a value out of range), FEDFT-8504 (count noise that leaves none for the
            updates: σ_b must exceed σ / 2).

    """

    def __init__(
        self,
        dimension: int,
        *,
        max_norm: float,
        noise_multiplier: float,
        cohort: float,
        sample_rate: float = 1.0,
        adaptive: AdaptiveClip | None = None,
        noise: NoiseSource | None = None,
    ) -> None:
        _check_positive(dimension=dimension, max_norm=max_norm, cohort=cohort)
        self._event = PrivacyEvent(noise_multiplier, sample_rate)
        self.dimension = dimension
        self.max_norm = max_norm
        self.noise_multiplier = noise_multiplier
        self._update_multiplier = _split_multiplier(noise_multiplier, adaptive)
        self._cohort = cohort
        self._adaptive = adaptive
        self._noise = noise or SecureNoise()
        self._sum = torch.zeros(dimension, dtype=torch.float64)
        self._shifted_bits = 0.0

    @property
    def limit(self) -> float:
        """The largest L2 norm of a decoded update that counts."""
        return self.max_norm * (1 + TOLERANCE)

    def event(self) -> PrivacyEvent:
        """Return what one round costs, with the release of the clipping bits."""
        return self._event

    def add(self, rows: Tensor) -> None:
        """Take in decoded updates, (clients, d) float32, that the clients clipped to `max_norm`.

        Raises:
            FedftError: FEDFT-8505 (shape), FEDFT-8502 (not finite), FEDFT-8503 (norm above `limit`).

        """
        if rows.dim() != 2 or rows.shape[1] != self.dimension:
            raise FedftError(
                Code.CONTRIBUTION_SHAPE_MISMATCH,
                f"updates of shape {tuple(rows.shape)}, expected (clients, {self.dimension})",
            )
        norm = float(torch.linalg.vector_norm(rows.double(), dim=1).max()) if len(rows) else 0.0
        if not math.isfinite(norm):
            raise FedftError(Code.CLIENT_UPDATE_NOT_FINITE, "a client's update is not finite")
        if norm > self.limit:
            raise FedftError(
                Code.CLIENT_UPDATE_ABOVE_BOUND,
                f"a client's update has norm {norm:.6g}, the round's bound is {self.max_norm:.6g}",
                hint="the client must clip after error feedback and compression",
            )
        self._sum += rows.double().sum(0)

    def note(self, unclipped: bool) -> None:
        """Take in a client's bit, whether its norm was within the bound; at most once a client and round."""
        self._shifted_bits += 0.5 if unclipped else -0.5

    def release(self, total: Tensor | None = None) -> Tensor:
        """Return the noised mean, (d,) float32, adapt the bound, and start the next round.

        Args:
            total: (d,) float64 exact sum of updates within `limit`; None for the sum that `add` kept.

        """
        noised = add_gaussian(
            self._sum if total is None else total, self._update_multiplier * self.limit, self._noise
        )
        if self._adaptive is not None:
            self._adapt(self._adaptive)
        self._sum = torch.zeros(self.dimension, dtype=torch.float64)
        self._shifted_bits = 0.0
        return (noised / self._cohort).float()

    def _adapt(self, adaptive: AdaptiveClip) -> None:
        # Bits are shifted to ±1/2, so that one client moves their sum by 1/2 and not by 1.
        bits = torch.tensor([self._shifted_bits], dtype=torch.float64)
        noised = float(add_gaussian(bits, adaptive.count_noise, self._noise))
        share = noised / self._cohort + 0.5
        self.max_norm *= math.exp(-adaptive.rate * (share - adaptive.quantile))


def _split_multiplier(noise_multiplier: float, adaptive: AdaptiveClip | None) -> float:
    """Return σ_Δ = (σ⁻² - (2 σ_b)⁻²)^(-1/2), so that updates and bits together cost σ (theorem 1)."""
    if adaptive is None:
        return noise_multiplier
    _check_positive(rate=adaptive.rate, count_noise=adaptive.count_noise)
    if not 0 <= adaptive.quantile <= 1:
        raise FedftError(
            Code.MECHANISM_SETTING_INVALID, f"quantile is {adaptive.quantile} and must lie between 0 and 1"
        )
    left = noise_multiplier**-2 - (2 * adaptive.count_noise) ** -2
    if left <= 0:
        raise FedftError(
            Code.COUNT_NOISE_TOO_LARGE,
            f"count_noise {adaptive.count_noise:g} spends more than the whole noise multiplier "
            f"{noise_multiplier:g} allows",
            hint="more than half the noise multiplier; a twentieth of the cohort is usual",
        )
    return float(left**-0.5)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise FedftError(
                Code.MECHANISM_SETTING_INVALID, f"{name} is {value} and must be a positive number"
            )
