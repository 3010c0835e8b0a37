"""The distributed discrete Gaussian mechanism: each client adds a share of the noise that the sum needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.rotation import padded_size, rotate, unrotate
from fedft.errors import Code, FedftError
from fedft.secagg.binding import bind
from fedft.secagg.discrete_gaussian import discrete_gaussian
from fedft.secagg.messages import Payload
from fedft.secagg.noise_accounting import NoiseShares, least_variance
from fedft.secagg.random_words import WordSource, secure_words

_ATTEMPTS = 200
_CLAMPED = 1e-3
"""Share of δ that pays for noise beyond the digits' range."""


@dataclass(frozen=True)
class DistributedNoise:
    """Bounded contributions on an integer grid, with noise added before they are masked.

    Kairouz, Liu and Steinke (ICML 2021): rotate with the round's seed, clip to ``max_norm``, divide by
    ``step``, round to integers whose norm is within ``norm``, add discrete Gaussian noise. A unit is what one
    call of ``integers`` takes in: a client's whole update (client level), or one example's gradient, whose
    integers a site adds up before its one share of noise (example level).

    Guarantee: the sum over the survivors is (ε, δ)-DP for taking one unit away, with ε of ``epsilon``,
    towards whoever sees that sum and no client's own message, if at least ``honest`` of the survivors added
    their share. Towards a server that colludes with as many clients as the threshold a client has only its
    own noise: ``epsilon_alone``. It assumes that secure aggregation hides all but the sum.

    Args:
        elements: length of the unrotated vector.
        max_norm: L2 bound C of a unit.
        step: of the grid, in the unit of the vector.
        honest: survivors whose noise counts: the threshold less the clients that may collude.
        variance: σ² of one client's share, in steps squared.
        reach: largest integer of a client's vector before noise; what is beyond is clamped.
        room: further integers that noise may use on either side.

    Raises:
        FedftError: FEDFT-8828 for a value out of range.

    """

    elements: int
    max_norm: float
    step: float
    honest: int
    variance: int
    reach: int
    room: int

    def __post_init__(self) -> None:
        good = self.elements >= 1 and self.reach >= 1 and self.room >= 1
        if not (good and 0 < self.max_norm < math.inf and 0 < self.step < math.inf):
            raise FedftError(Code.NOISE_SHARE_INVALID, f"a mechanism out of range: {self}")
        self.shares(self.honest)

    @classmethod
    def calibrated(
        cls,
        elements: int,
        *,
        max_norm: float,
        step: float,
        honest: int,
        clients: int,
        reach: int,
        steps: int,
        epsilon: float,
        delta: float,
    ) -> DistributedNoise:
        """Choose the least noise with which ``steps`` rounds of up to ``clients`` cost at most ε at δ.

        Raises:
            FedftError: FEDFT-8828 when there is none.

        """
        draft = cls(elements, max_norm, step, honest, 1, reach, 1)
        kept = delta * (1 - _CLAMPED)
        variance = least_variance(draft.shares(honest), steps, epsilon, kept)
        chance = delta * _CLAMPED / ((1 + math.exp(epsilon)) * steps * clients * draft.dimension)
        room = math.ceil(math.sqrt(2 * variance * math.log(2 / chance)))
        return replace(draft, variance=variance, room=room)

    @property
    def dimension(self) -> int:
        """Length of the rotated vector."""
        return padded_size(self.elements)

    @property
    def norm(self) -> float:
        """Bound of a unit's integers: what random rounding keeps to with probability 1 - exp(-1/2) or more.

        There, theorem 1 with β = exp(-1/2): min(c + √d, √(c² + d/4 + c + √d/2)) with c = C / step.
        """
        c, d = self.max_norm / self.step, self.dimension
        return min(c + math.sqrt(d), math.sqrt(c * c + d / 4 + c + math.sqrt(d) / 2))

    @property
    def half(self) -> int:
        """Largest integer that travels."""
        return self.reach + self.room

    def payload(self, seed: bytes) -> Payload:
        """What client and server agree on for a round with this seed."""
        facts = repr((self.elements, self.max_norm, self.step, self.honest, self.variance, self.reach))
        return Payload(self.dimension, 2 * self.half, bind(b"distributed noise", facts.encode(), seed))

    def integers(
        self, vector: NDArray[np.float32], seed: bytes, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Put one unit on the grid: (elements,) to (dimension,) int64 of L2 norm at most ``norm``, always.

        Args:
            vector: the unit's, of any length; one that is not finite counts as zero.
            seed: the round's, for the rotation.
            generator: for the rounding, which privacy does not rest on.

        """
        rotated = rotate(vector, seed).astype(np.float64)
        size = float(np.linalg.norm(rotated))
        if not math.isfinite(size):
            return np.zeros(self.dimension, dtype=np.int64)
        rotated *= min(1.0, self.max_norm / size) / self.step if size else 1.0
        for _ in range(_ATTEMPTS):
            rounded = np.floor(rotated + generator.random(rotated.size)).astype(np.int64)
            if int(np.dot(rounded, rounded)) <= self.norm**2:
                return rounded
        return np.trunc(rotated).astype(np.int64)

    def digits(self, total: NDArray[np.int64], source: WordSource = secure_words) -> NDArray[np.int64]:
        """Add this client's share of noise to the sum of its units; (dimension,) digits to mask.

        Args:
            total: (dimension,) sum of what ``integers`` gave.
            source: for tests; the default is secure.

        """
        noise = discrete_gaussian(self.dimension, self.variance, source)
        clamped = np.clip(total, -self.reach, self.reach)
        digits: NDArray[np.int64] = np.clip(clamped + noise, -self.half, self.half) + self.half
        return digits

    def total(self, sums: NDArray[np.int64], clients: int, seed: bytes) -> NDArray[np.float64]:
        """Give the noised sum, (elements,), that the sums of ``clients`` clients' digits stand for."""
        values = (sums - clients * self.half).astype(np.float64) * self.step
        return unrotate(values, seed, self.elements)

    def shares(self, honest: int) -> NoiseShares:
        """Give what is accounted for when so many clients' noise counts."""
        return NoiseShares(honest, self.variance, self.dimension, self.norm)

    def epsilon(self, steps: int, clients: int, delta: float) -> float:
        """Give ε at δ of ``steps`` sums over up to ``clients`` clients, clamping included.

        Clamped noise differs from unclamped noise with probability β at most, which turns (ε, δ) into
        (ε, δ + (1 + exp ε) β); ``calibrated`` makes room for that within δ.
        """
        epsilon = self.shares(self.honest).epsilon(steps, delta * (1 - _CLAMPED))
        tail = 2 * math.exp(-(self.room**2) / (2 * self.variance))
        spent = (1 + math.exp(epsilon)) * steps * clients * self.dimension * tail
        return epsilon if spent <= delta * _CLAMPED else math.inf

    def epsilon_alone(self, steps: int, delta: float) -> float:
        """Give ε at δ towards those who see the client's own noised vector: its share and nothing else."""
        return self.shares(1).epsilon(steps, delta)
