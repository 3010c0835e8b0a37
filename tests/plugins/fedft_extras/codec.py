"""Every value in half precision, cut to some binary places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedft.codecs import CodecContext, Domain, Manifest, Shard, Sink
from fedft.codecs.checks import expect_size, extent, finite_peak, finite_vector, squared_norm
from fedft.codecs.interface import Named
from fedft.options import Options
from fedft.tensors import Arrays


class HalfOptions(Options):
    places: int = Field(20, ge=1, le=24, description="binary places that are kept")


@dataclass(frozen=True)
class Half(Named):
    places: int = 20

    name: ClassVar[str] = "half"
    options: ClassVar[type[Options]] = HalfOptions
    needs_state: ClassVar[bool] = True
    integer_grid: ClassVar[bool] = False
    bits_per_parameter: ClassVar[float] = 16.0

    def configured(self, options: Options) -> Half:
        return Half(**options.model_dump())

    def option_values(self) -> Options:
        return HalfOptions(places=self.places)

    def encode(self, tensors: Arrays, manifest: Manifest, context: CodecContext) -> list[Shard]:
        unit = 2.0**self.places
        values = np.round(finite_vector(tensors, manifest) * unit) / unit
        return [Shard(0, len(manifest.tensors), self.spec, values.astype("<f2").tobytes())]

    def decode_shard(self, shard: Shard, manifest: Manifest, context: CodecContext) -> HalfDecoded:
        start, end = extent(shard, manifest)
        expect_size(shard.blob, 2 * (end - start), "a half shard")
        return HalfDecoded(start, np.frombuffer(shard.blob, dtype="<f2").astype(np.float32))


class HalfDecoded:
    domain = Domain.PLAIN

    def __init__(self, start: int, values: NDArray[np.float32]) -> None:
        self._start, self._values = start, values
        self.peak, self.squared_norm = finite_peak(values), squared_norm(values)

    def add_into(self, sink: Sink) -> None:
        sink.add_dense(self._start, self._values)

    def write_into(self, flat: NDArray[np.float32]) -> None:
        flat[self._start : self._start + self._values.size] = self._values


HALF = Half()
