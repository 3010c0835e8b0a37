"""The server's running weighted mean of decoded updates."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedft.aggregation.exact_sum import CAPACITY_BITS, ExactSum
from fedft.codecs import DecodedUpdate, Domain, Manifest
from fedft.codecs.rotation import padded_size, unrotate
from fedft.errors import Code, FedftError
from fedft.tensors import Arrays

FRACTION_BITS = 48
MAX_WEIGHT = 1 << 20
MAX_ABS = 1024.0
_MIN_CONTRIBUTIONS_BITS = 16


class ExactAccumulator:
    """Weighted mean of many updates with the same bits for every order and grouping, in O(model) memory.

    Every value becomes an integer ``rint(v·2**fraction_bits)``; integers times integer weights are summed
    exactly; the one division comes at the end. Bound: a contribution is below
    ``max_weight · max_abs · 2**fraction_bits``, limited to ``2**78``, and sums hold ``2**94``, so that
    65,535 contributions at all caps fit; the bound in use is tracked, and a contribution that could
    overflow is refused. Values of rotated codecs are summed in their own domain, which is turned back
    once in ``mean``.

    Args:
        manifest: names and shapes of the exchanged tensors.
        fraction_bits: the grid ``2**-fraction_bits``; 48 holds every float32 from 3e-8 up exactly.
        max_weight: largest weight of a contribution.
        max_abs: largest magnitude of a value.
        seed: the round's, for the rotated domain.

    Raises:
        FedftError: FEDFT-5012 when the caps leave room for fewer than 65,535 contributions.

    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        fraction_bits: int = FRACTION_BITS,
        max_weight: int = MAX_WEIGHT,
        max_abs: float = MAX_ABS,
        seed: bytes = b"",
    ) -> None:
        grid = fraction_bits + np.log2(max_abs)
        fits = grid + np.log2(max_weight) + _MIN_CONTRIBUTIONS_BITS <= CAPACITY_BITS
        # A value on the grid must itself fit an int64 before it is split into limbs, and so must a weight.
        if not (fits and grid <= 62 and 1 <= max_weight <= 1 << 30 and 0 <= fraction_bits <= 62):
            raise FedftError(
                Code.CAPS_INCONSISTENT,
                f"{fraction_bits} fraction bits, weights to {max_weight} and values to {max_abs:g} "
                f"do not fit the accumulator",
                hint="2^fraction_bits · max_abs may reach 2^62, times max_weight 2^78",
            )
        self.manifest = manifest
        self.fraction_bits = fraction_bits
        self.max_weight = max_weight
        self.max_abs = max_abs
        self.seed = seed
        self.total_weight = 0
        self.count = 0
        self._sums: dict[Domain, ExactSum] = {}

    def add(self, arrays: Arrays, weight: int) -> None:
        """Add named float32 arrays with an integer weight, all or nothing.

        Raises:
            FedftError: FEDFT-4015 when they do not fit the manifest, FEDFT-5008 and FEDFT-5009 on the weight,
                FEDFT-5010 on NaN, infinity or a value above ``max_abs``, FEDFT-5011 on capacity.

        """
        self.manifest.check(arrays)
        pieces = [arrays[tensor.name].reshape(-1) for tensor in self.manifest.tensors]
        peak = float(np.max([_peak(piece) for piece in pieces]))
        self.check(peak, weight)
        sink = self._sum(Domain.PLAIN).contribution(weight, peak)
        for start, piece in zip(self.manifest.offsets[:-1].tolist(), pieces, strict=True):
            sink.add_dense(start, piece)
        self._counted(weight, 1)

    def add_decoded(self, update: DecodedUpdate, weight: int) -> None:
        """Add a checked update with an integer weight, all or nothing; raises as ``add`` does."""
        self.check(update.peak, weight)
        domains = {shard.domain for shard in update.shards}
        sinks = {domain: self._sum(domain).contribution(weight, update.peak) for domain in domains}
        for shard in update.shards:
            shard.add_into(sinks[shard.domain])
        self._counted(weight, 1)

    def check(self, peak: float, weight: int) -> None:
        """Raise what ``add`` would for a contribution of this weight with values up to ``peak``."""
        if weight < 1:
            raise FedftError(Code.WEIGHT_NOT_POSITIVE, f"weight {weight} is not positive")
        if weight > self.max_weight:
            raise FedftError(Code.WEIGHT_ABOVE_CAP, f"weight {weight} is above the cap of {self.max_weight}")
        if not peak <= self.max_abs:
            raise FedftError(
                Code.VALUE_OUT_OF_RANGE, f"a value of magnitude {peak:g}, at most {self.max_abs:g} allowed"
            )

    def mean(self) -> dict[str, NDArray[np.float32]]:
        """Give the weighted mean, divided in float64 and rounded to float32 once.

        Raises:
            FedftError: FEDFT-5014 when nothing was added.

        """
        if self.total_weight == 0:
            raise FedftError(Code.NO_UPDATES, "the mean of no updates does not exist")
        return self.manifest.unflatten((self.total() / self.total_weight).astype(np.float32))

    def total(self) -> NDArray[np.float64]:
        """Give the weighted sum, (d,) in the manifest's order; zeros when nothing was added."""
        total = np.zeros(self.manifest.total_elements)
        if Domain.PLAIN in self._sums:
            total += self._sums[Domain.PLAIN].to_float64()
        if Domain.ROTATED in self._sums:
            total += unrotate(self._sums[Domain.ROTATED].to_float64(), self.seed, total.size)
        return np.ldexp(total, -self.fraction_bits)

    def digest(self) -> str:
        """SHA-256 (hex) over the integers and the counts; the same for every order and grouping."""
        digest = hashlib.sha256(b"fedft accumulator v1\0" + bytes.fromhex(self.manifest.digest()))
        digest.update(f"{self.total_weight} {self.count}".encode())
        for domain in sorted(self._sums, key=lambda domain: domain.value):
            digest.update(f" {domain.value} {self._sums[domain].digest()}".encode())
        return digest.hexdigest()

    def exact_sum(self, domain: Domain = Domain.PLAIN) -> ExactSum:
        """Give the integers of one domain, for inspection."""
        return self._sum(domain)

    def _sum(self, domain: Domain) -> ExactSum:
        if domain not in self._sums:
            size = self.manifest.total_elements
            rotated = domain is Domain.ROTATED
            self._sums[domain] = ExactSum(padded_size(size) if rotated else size, self.fraction_bits)
        return self._sums[domain]

    def _counted(self, weight: int, count: int) -> None:
        self.total_weight += weight
        self.count += count


def _peak(values: NDArray[np.float32]) -> float:
    """Give the largest magnitude, NaN if there is one."""
    return float(np.maximum(values.max(), -values.min()))
