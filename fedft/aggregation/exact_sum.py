"""Weighted sums of real vectors that do not depend on order or grouping, bit for bit."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.interface import Floats
from fedft.errors import Code, FedftError

LOW_BITS = 32
CAPACITY_BITS = 94
"""``|Σ| < 2**94``: then the high limb stays below 2**62 and the sum is exact in ``high·2**32 + low``."""

_LOW_MASK = (1 << LOW_BITS) - 1
_NARROW = 1 << 62
_CHUNK = 1 << 15


class ExactSum:
    """``Σᵢ wᵢ·rint(vᵢ·2**fraction_bits)`` over a flat vector, in two int64 limbs per element.

    Integer addition is associative and commutative, so every order and grouping gives the same integers.
    Limbs are normalised (``0 <= low < 2**32``) only when the low one could overflow and before they are
    read. 16 bytes per element, however many contributions. Weights are below 2**30, values on the grid
    below 2**62.

    Args:
        size: number of elements.
        fraction_bits: the grid; a value finer than ``2**-fraction_bits`` is rounded to it, ties to even.
            Every float32 of magnitude ``2**(23 - fraction_bits)`` or more is on the grid.

    """

    def __init__(self, size: int, fraction_bits: int) -> None:
        self.size = size
        self.fraction_bits = fraction_bits
        self._high = np.zeros(size, dtype=np.int64)
        self._low = np.zeros(size, dtype=np.int64)
        self._bound = 0
        self._low_bound = 0
        self._normal = True

    def contribution(self, weight: int, peak: float) -> Contribution:
        """Open a contribution whose values stay within ``peak``.

        Raises:
            FedftError: FEDFT-5011 when the sum could leave its limbs.

        """
        largest = (int(np.ceil(np.ldexp(peak, self.fraction_bits))) + 1) * weight
        self._reserve(largest, min(largest, weight << LOW_BITS) if largest >= _NARROW else largest)
        return Contribution(self._high, self._low, self.fraction_bits, weight, largest < _NARROW)

    def to_float64(self) -> NDArray[np.float64]:
        """Give the sum in units of ``2**-fraction_bits``, each element rounded once unless above 2**85."""
        self._normalise()
        return self._high.astype(np.float64) * 2.0**LOW_BITS + self._low

    def to_integers(self) -> list[int]:
        """Give the sum exactly; slow, for tests and inspection."""
        return [
            (high << LOW_BITS) + low
            for high, low in zip(self._high.tolist(), self._low.tolist(), strict=True)
        ]

    def digest(self) -> str:
        """SHA-256 (hex) over grid and integers; the same for every order and grouping."""
        self._normalise()
        digest = hashlib.sha256(b"fedft exact sum v1\0" + struct.pack("<QI", self.size, self.fraction_bits))
        for limb in (self._high, self._low):
            digest.update(limb.astype("<i8", copy=False).data)
        return digest.hexdigest()

    def _reserve(self, largest: int, low: int) -> None:
        if self._bound + largest >= 1 << CAPACITY_BITS:
            reach = (self._bound + largest).bit_length()
            raise FedftError(
                Code.SUM_OVERFLOW,
                f"the sum could reach 2^{reach}, there is room for 2^{CAPACITY_BITS}",
                hint="fewer clients a round, or a lower weight cap, value cap or number of fraction bits",
            )
        self._bound += largest
        if self._low_bound + low >= 1 << 63:
            self._normalise()
        self._low_bound += low
        self._normal = False

    def _normalise(self) -> None:
        if self._normal:
            return
        for first in range(0, self.size, _CHUNK):
            low = self._low[first : first + _CHUNK]
            self._high[first : first + _CHUNK] += low >> LOW_BITS
            low &= _LOW_MASK
        self._low_bound = _LOW_MASK
        self._normal = True


@dataclass(frozen=True)
class Contribution:
    """The open end of an ``ExactSum`` for one weighted vector; satisfies ``fedft.codecs.Sink``."""

    high: NDArray[np.int64]
    low: NDArray[np.int64]
    fraction_bits: int
    weight: int
    narrow: bool

    def add_dense(self, start: int, values: Floats) -> None:
        """Add a run of values from ``start`` on."""
        for first in range(0, values.size, _CHUNK):
            chunk = values[first : first + _CHUNK]
            self._add(slice(start + first, start + first + chunk.size), chunk)

    def add_sparse(self, indices: NDArray[np.int64], values: Floats) -> None:
        """Add values at strictly increasing positions."""
        for first in range(0, values.size, _CHUNK):
            self._add(indices[first : first + _CHUNK], values[first : first + _CHUNK])

    def _add(self, where: slice | NDArray[np.int64], values: Floats) -> None:
        # A float32, or a product of two, times a power of two is exact in float64.
        scaled = np.multiply(values, 2.0**self.fraction_bits, dtype=np.float64)
        integers = np.rint(scaled, out=scaled).astype(np.int64)
        if self.narrow:
            integers *= self.weight
            self.low[where] += integers
        else:
            self.high[where] += (integers >> LOW_BITS) * self.weight
            self.low[where] += (integers & _LOW_MASK) * self.weight
