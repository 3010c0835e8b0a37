"""A round's grid made for the size of the updates, which the clients measure anew under the same masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedft.codecs import Manifest
from fedft.secagg.binding import bind
from fedft.secagg.grid import Grid, GridKind, steps_reaching
from fedft.secagg.messages import Payload
from fedft.tensors import Arrays

MIN_SIZE, MAX_SIZE = 1e-12, 1e6
_PER_OCTAVE = 8
_CENTRE, _LARGEST_CODE = 128, 255


@dataclass(frozen=True)
class RoundMean:
    """What a round's sum stands for: the weighted mean, the sum of the weights, the next round's sizes."""

    arrays: dict[str, NDArray[np.float32]]
    weight: int
    sizes: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SizedGrid:
    """A ``Grid`` whose steps follow published sizes, with a digit more or two for each tensor.

    A size is the root mean square of a tensor's elements in a client's weighted update. Each client appends
    the logarithm of its own, in eighths of an octave around the published one, in digits. The sum gives the
    geometric mean over the clients, which the next round's grid is made for: the server learns that mean,
    and no client's size.

    Args:
        kind: how fine.
        manifest: names and shapes of the exchanged tensors.
        sizes: (tensors,) float32, what the steps are made for.
        max_weight: the largest weight of a client.

    Raises:
        FedftError: FEDFT-8826 when a value is out of range.

    """

    kind: GridKind
    manifest: Manifest
    sizes: NDArray[np.float32]
    max_weight: int = 1

    @cached_property
    def grid(self) -> Grid:
        """The grid of the update and its weight."""
        steps = steps_reaching((self.kind.headroom * self.sizes.astype(np.float64)).tolist(), self.kind)
        return Grid(self.kind, self.manifest, steps, self.max_weight)

    @cached_property
    def payload(self) -> Payload:
        """What client and server agree on for the round."""
        inner = self.grid.payload
        digest = bind(b"sized grid", inner.grid, self.sizes.astype("<f4").tobytes())
        return Payload(inner.elements + self._powers.size * self.sizes.size, inner.largest, digest)

    def digits(
        self, update: Arrays, weight: int = 1, generator: np.random.Generator | None = None
    ) -> NDArray[np.int64]:
        """Put an update, its weight and its sizes into digits; raises as ``Grid.digits``."""
        base = self.kind.largest + 1
        front = self.grid.digits(update, weight, generator)
        sizes = (self._codes(update, weight)[:, None] // self._powers) % base
        return np.concatenate([front, sizes.reshape(-1)])

    def remainder(self, update: Arrays, digits: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Give what a client's digits leave out of its update, by name.

        Rounding to the nearest step and cutting off at the ends both bring every element nearer to zero or
        leave it, so that error feedback never diverges; digits that are all zero leave everything.
        """
        sent, _ = self.grid.mean(self._front(digits), 1)
        return {name: update[name] - sent[name] for name in update}

    def mean(self, sums: NDArray[np.int64], clients: int) -> RoundMean:
        """Read the sums of ``clients`` clients' digits; raises FEDFT-8826 when they are no such sums."""
        arrays, weight = self.grid.mean(self._front(sums), clients)
        codes = sums[self.grid.payload.elements :].reshape(self.sizes.size, -1) @ self._powers
        octaves = (codes / clients - _CENTRE) / _PER_OCTAVE
        sizes = self.sizes.astype(np.float64) * np.exp2(octaves)
        return RoundMean(arrays, weight, np.clip(sizes, MIN_SIZE, MAX_SIZE).astype(np.float32))

    @cached_property
    def _powers(self) -> NDArray[np.int64]:
        base, powers = self.kind.largest + 1, [1]
        while powers[-1] * base <= _LARGEST_CODE:
            powers.append(powers[-1] * base)
        return np.array(powers, dtype=np.int64)

    def _codes(self, update: Arrays, weight: int) -> NDArray[np.int64]:
        tensors = [update[tensor.name] for tensor in self.manifest.tensors]
        squares = np.array([np.mean(np.square(tensor, dtype=np.float64)) for tensor in tensors])
        own = np.sqrt(squares) * (weight / self.max_weight)
        octaves = np.log2(np.maximum(own, MIN_SIZE) / self.sizes)
        codes: NDArray[np.float64] = np.clip(np.rint(_PER_OCTAVE * octaves) + _CENTRE, 0, _LARGEST_CODE)
        return codes.astype(np.int64)

    def _front(self, digits: NDArray[np.int64]) -> NDArray[np.int64]:
        return digits[: self.grid.payload.elements]
