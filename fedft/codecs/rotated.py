"""One or two bits per coordinate of a randomly rotated update, unbiased and without state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.checks import expect_size, extent, finite_vector, read_scales
from fedft.codecs.interface import CodecContext, Domain, Fixed, Sink
from fedft.codecs.manifest import Manifest
from fedft.codecs.rotation import BLOCK, padded_size, rotate, unrotate
from fedft.codecs.spec import ROTATED, CodecSpec, RotatedParams, Shard
from fedft.errors import Code, FedftError
from fedft.tensors import Arrays

LEVELS: dict[int, tuple[float, ...]] = {1: (1.0,), 2: (0.4527800, 1.5104176)}
"""Magnitudes of the codes: for two bits the Lloyd-Max levels of a standard normal (Max, 1960)."""

_THRESHOLD = (LEVELS[2][0] + LEVELS[2][1]) / 2
_BLOCKS_AT_ONCE = 8


@dataclass(frozen=True)
class Rotated(Fixed):
    """Randomised Hadamard rotation in blocks of 4096, then sign (and magnitude) bits and a factor a block.

    The factor ``‖x‖² / ⟨Rx, Q(Rx)⟩`` makes the decoded value unbiased over uniformly random rotations:
    DRIVE (arXiv 2105.08339, section 3) for one bit, EDEN (arXiv 2108.08842, section 3) for two; with the
    Hadamard rotation it holds up to a term that vanishes with the block size. All clients of a round
    rotate with the round's seed, so the server sums coordinates as integers and rotates back once.

    Args:
        bits: 1 or 2.

    """

    bits: int = 1

    id: ClassVar[int] = ROTATED
    version: ClassVar[int] = 1
    params: ClassVar[type[RotatedParams]] = RotatedParams
    needs_state: ClassVar[bool] = False
    integer_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bits not in LEVELS:
            raise FedftError(Code.CODEC_OPTIONS_INVALID, f"rotated with {self.bits} bits", hint="1 or 2")

    @classmethod
    def of(cls, params: RotatedParams) -> Rotated:
        """Build the codec that a shard names; raises FEDFT-4011 on parameters out of range."""
        return cls(params.bits)

    @property
    def name(self) -> str:
        """As in a configuration."""
        return f"rotated{self.bits}"

    @property
    def spec(self) -> CodecSpec:
        """What travels with each shard."""
        return CodecSpec(self.id, self.version, RotatedParams(self.bits))

    @property
    def bits_per_parameter(self) -> float:
        """Exact but for padding."""
        return float(self.bits) + 32 / BLOCK

    def encode(self, tensors: Arrays, manifest: Manifest, context: CodecContext) -> list[Shard]:
        """Code as one shard; raises FEDFT-4019 without the round's seed."""
        if not context.seed:
            raise FedftError(Code.CODEC_CONTEXT_MISSING, f"codec {self.name} needs the round's seed")
        blocks = rotate(finite_vector(tensors, manifest), context.seed).reshape(-1, BLOCK)
        squares = np.einsum("ij,ij->i", blocks, blocks, dtype=np.float64)
        planes, products = self._quantise(blocks, squares)
        scales = np.divide(squares, products, out=np.zeros_like(squares), where=products > 0)
        scales = np.where(scales < np.finfo(np.float32).tiny, 0, scales).astype("<f4")
        return [Shard(0, len(manifest.tensors), self.spec, planes, scales.tobytes())]

    def decode_shard(self, shard: Shard, manifest: Manifest, context: CodecContext) -> RotatedDecoded:
        """Check extent, length and scales; a rotation mixes all tensors, so a shard covers them all."""
        extent(shard, manifest)
        if shard.tensor_count != len(manifest.tensors):
            raise FedftError(
                Code.SHARDS_INCOMPLETE, f"a rotated shard covers {shard.tensor_count} tensors, not all"
            )
        size = padded_size(manifest.total_elements)
        expect_size(shard.blob, self.bits * size // 8, "a rotated shard")
        scales = read_scales(shard, size // BLOCK)
        planes = np.frombuffer(shard.blob, dtype=np.uint8).reshape(self.bits, -1)
        return RotatedDecoded(planes, scales, context.seed, manifest.total_elements)

    def _quantise(
        self, blocks: NDArray[np.float32], squares: NDArray[np.float64]
    ) -> tuple[bytes, NDArray[np.float64]]:
        """Give the bit planes and ``⟨Rx, Q(Rx)⟩`` for each block."""
        magnitudes = np.abs(blocks)
        signs = np.packbits(np.signbit(blocks), bitorder="little").tobytes()
        if self.bits == 1:
            return signs, magnitudes.sum(axis=1, dtype=np.float64)
        deviation = np.sqrt(squares / BLOCK)
        outer = magnitudes > (_THRESHOLD * deviation)[:, None].astype(np.float32)
        low, high = LEVELS[2]
        inner = np.where(outer, np.float32(0), magnitudes).sum(axis=1, dtype=np.float64)
        total = magnitudes.sum(axis=1, dtype=np.float64)
        products = low * inner + high * (total - inner)
        return signs + np.packbits(outer, bitorder="little").tobytes(), products


ROTATED1, ROTATED2 = Rotated(1), Rotated(2)


class RotatedDecoded:
    """Checked bit planes (sign, then magnitude) and factors of all blocks."""

    domain = Domain.ROTATED

    def __init__(
        self, planes: NDArray[np.uint8], scales: NDArray[np.float32], seed: bytes, elements: int
    ) -> None:
        self._planes = planes
        self._scales = scales
        self._seed = seed
        self._elements = elements
        self._levels = np.array(LEVELS[len(planes)])
        self.peak = float(scales.max()) * float(self._levels[-1])
        self.squared_norm = float(np.dot(np.square(scales, dtype=np.float64), self._level_squares()))

    def add_into(self, sink: Sink) -> None:
        """Give the coordinates to a sink over the padded vector."""
        for first in range(0, self._scales.size, _BLOCKS_AT_ONCE):
            sink.add_dense(first * BLOCK, self._coordinates(first))

    def write_into(self, flat: NDArray[np.float32]) -> None:
        """Rotate back and write into the manifest's flat vector."""
        starts = range(0, self._scales.size, _BLOCKS_AT_ONCE)
        coordinates = np.concatenate([self._coordinates(first) for first in starts])
        flat[:] = unrotate(coordinates, self._seed, self._elements)

    def _coordinates(self, first: int) -> NDArray[np.float64]:
        scales = self._scales[first : first + _BLOCKS_AT_ONCE].astype(np.float64)
        bits = [self._bits(plane, first).reshape(-1, BLOCK) for plane in self._planes]
        factors = scales[:, None] * self._levels
        codes = np.concatenate([factors, -factors], axis=1)
        index = bits[0] if len(bits) == 1 else 2 * bits[0] + bits[1]
        return np.take_along_axis(codes, index.astype(np.intp), axis=1).reshape(-1)

    def _bits(self, plane: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
        width = BLOCK // 8
        return np.unpackbits(plane[first * width : (first + _BLOCKS_AT_ONCE) * width], bitorder="little")

    def _level_squares(self) -> NDArray[np.float64]:
        """Sum of squared levels over each block."""
        if len(self._planes) == 1:
            return np.full(self._scales.size, float(BLOCK))
        outer = np.unpackbits(self._planes[1]).reshape(-1, BLOCK).sum(axis=1, dtype=np.float64)
        low, high = np.square(self._levels).tolist()
        squares: NDArray[np.float64] = low * (BLOCK - outer) + high * outer
        return squares
