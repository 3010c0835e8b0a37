"""Every value as float32, or rounded to bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.checks import CHUNK, expect_size, extent, finite_peak, finite_vector, squared_norm
from fedft.codecs.interface import CodecContext, Domain, Fixed, Sink
from fedft.codecs.manifest import Manifest
from fedft.codecs.spec import DENSE, CodecSpec, DenseParams, DenseType, Shard
from fedft.tensors import Arrays


@dataclass(frozen=True)
class Dense(Fixed):
    """Little-endian values in the manifest's order; bfloat16 is rounded to nearest, ties to even."""

    dtype: DenseType = "float32"

    id: ClassVar[int] = DENSE
    version: ClassVar[int] = 1
    params: ClassVar[type[DenseParams]] = DenseParams
    needs_state: ClassVar[bool] = False
    integer_grid: ClassVar[bool] = False

    @classmethod
    def of(cls, params: DenseParams) -> Dense:
        """Build the codec that a shard names."""
        return cls(params.dtype)

    @property
    def name(self) -> str:
        """As in a configuration."""
        return "dense" if self.dtype == "float32" else "bf16"

    @property
    def spec(self) -> CodecSpec:
        """What travels with each shard."""
        return CodecSpec(self.id, self.version, DenseParams(self.dtype))

    @property
    def bits_per_parameter(self) -> float:
        """Exact."""
        return 32.0 if self.dtype == "float32" else 16.0

    def encode(self, tensors: Arrays, manifest: Manifest, context: CodecContext) -> list[Shard]:
        """Code as one shard."""
        flat = finite_vector(tensors, manifest)
        words = flat.astype("<f4", copy=False) if self.dtype == "float32" else _to_bfloat16(flat)
        return [Shard(0, len(manifest.tensors), self.spec, words.tobytes())]

    def decode_shard(self, shard: Shard, manifest: Manifest, context: CodecContext) -> DenseDecoded:
        """Check length and finiteness."""
        start, end = extent(shard, manifest)
        width = 4 if self.dtype == "float32" else 2
        expect_size(shard.blob, width * (end - start), "a dense shard")
        expect_size(shard.scales, 0, "the scales of a dense shard")
        return DenseDecoded(start, np.frombuffer(shard.blob, dtype="<f4" if width == 4 else "<u2"))


DENSE_CODEC, BF16 = Dense("float32"), Dense("bfloat16")


class DenseDecoded:
    """Checked words of a dense shard."""

    domain = Domain.PLAIN

    def __init__(self, start: int, words: NDArray[np.float32] | NDArray[np.uint16]) -> None:
        self._start = start
        self._words = words
        self.peak = 0.0
        self.squared_norm = 0.0
        for first in range(0, words.size, CHUNK):
            values = self._values(first)
            self.peak = max(self.peak, finite_peak(values))
            self.squared_norm += squared_norm(values)

    def add_into(self, sink: Sink) -> None:
        """Give the values to a sink over the whole manifest."""
        for first in range(0, self._words.size, CHUNK):
            sink.add_dense(self._start + first, self._values(first))

    def write_into(self, flat: NDArray[np.float32]) -> None:
        """Write the values into the manifest's flat vector."""
        for first in range(0, self._words.size, CHUNK):
            values = self._values(first)
            flat[self._start + first : self._start + first + values.size] = values

    def _values(self, first: int) -> NDArray[np.float32]:
        words = self._words[first : first + CHUNK]
        if words.dtype.itemsize == 4:
            return words  # type: ignore[return-value]
        return (words.astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to the upper 16 bits, ties to even, saturating below infinity."""
    bits = values.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    overflown = (rounded & 0x7FFF) == 0x7F80
    return np.where(overflown, rounded - 1, rounded).astype("<u2")
