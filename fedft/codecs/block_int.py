"""Four or eight bits per element with a factor per block, rounded stochastically."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.checks import expect_size, extent, finite_vector, read_scales
from fedft.codecs.entropy import huffman, unhuffman
from fedft.codecs.interface import CodecContext, Domain, Fixed, Sink
from fedft.codecs.manifest import Manifest
from fedft.codecs.spec import BLOCK_INT, BlockIntParams, CodecSpec, Shard
from fedft.errors import Code, FedftError
from fedft.tensors import Arrays

_RAW, _HUFFMAN = 0, 1
"""First byte of a blob: how the rest is coded."""

_BLOCKS_AT_ONCE = 64
_MAX_BLOCK = 1 << 16


@dataclass(frozen=True)
class BlockInt(Fixed):
    """``floor(x/s + u)`` with u uniform in [0, 1) and s = max|x| / largest code: unbiased (QSGD's rounding).

    Args:
        bits: 4 or 8; codes run from -7 to 7 or -127 to 127.
        block: consecutive elements that share a factor.

    """

    bits: int = 8
    block: int = 512

    id: ClassVar[int] = BLOCK_INT
    version: ClassVar[int] = 1
    params: ClassVar[type[BlockIntParams]] = BlockIntParams
    needs_state: ClassVar[bool] = False
    integer_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or not 16 <= self.block <= _MAX_BLOCK or self.block % 2:
            raise FedftError(
                Code.CODEC_OPTIONS_INVALID,
                f"block integers of {self.bits} bits in blocks of {self.block}",
                hint=f"4 or 8 bits, an even block from 16 to {_MAX_BLOCK}",
            )

    @classmethod
    def of(cls, params: BlockIntParams) -> BlockInt:
        """Build the codec that a shard names; raises FEDFT-4011 on parameters out of range."""
        return cls(params.bits, params.block)

    @property
    def name(self) -> str:
        """As in a configuration."""
        return f"int{self.bits}"

    @property
    def spec(self) -> CodecSpec:
        """What travels with each shard."""
        return CodecSpec(self.id, self.version, BlockIntParams(self.bits, self.block))

    @property
    def bits_per_parameter(self) -> float:
        """An upper bound: Huffman coding, where it pays, makes it smaller."""
        return self.bits + 32 / self.block

    def encode(self, tensors: Arrays, manifest: Manifest, context: CodecContext) -> list[Shard]:
        """Code as one shard; raises FEDFT-4019 without a generator."""
        if context.generator is None:
            raise FedftError(
                Code.CODEC_CONTEXT_MISSING, f"codec {self.name} needs a generator for its rounding"
            )
        flat = finite_vector(tensors, manifest)
        padded = np.zeros(_ceil(flat.size, self.block) * self.block, dtype=np.float32)
        padded[: flat.size] = flat
        blocks = padded.reshape(-1, self.block)
        scales = self._scales(np.abs(blocks).max(axis=1))
        safe = np.where(scales > 0, scales, np.float32(np.inf))
        noise = context.generator.random(blocks.shape, dtype=np.float32)
        codes = np.floor(blocks / safe[:, None] + noise).astype(np.int8).reshape(-1)[: flat.size]
        return [Shard(0, len(manifest.tensors), self.spec, self._pack(codes), scales.tobytes())]

    def decode_shard(self, shard: Shard, manifest: Manifest, context: CodecContext) -> BlockIntDecoded:
        """Check length, stream, codes and scales."""
        start, end = extent(shard, manifest)
        scales = read_scales(shard, _ceil(end - start, self.block))
        return BlockIntDecoded(start, self._unpack(shard.blob, end - start), scales, self.block)

    @property
    def _largest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def _scales(self, peaks: NDArray[np.float32]) -> NDArray[np.float32]:
        # One step up, so that max|x| / s does not round above the largest code.
        scales = np.nextafter(peaks / np.float32(self._largest), np.float32(np.inf), dtype=np.float32)
        return np.where(scales < np.finfo(np.float32).tiny, np.float32(0), scales).astype("<f4")

    def _pack(self, codes: NDArray[np.int8]) -> bytes:
        data = codes.tobytes() if self.bits == 8 else _to_nibbles(codes).tobytes()
        smaller = huffman(data)
        return bytes([_HUFFMAN]) + smaller if len(smaller) < len(data) else bytes([_RAW]) + data

    def _unpack(self, blob: bytes, count: int) -> NDArray[np.int8]:
        size = _ceil(count * self.bits, 8)
        if not blob or blob[0] not in (_RAW, _HUFFMAN):
            raise FedftError(
                Code.BLOB_MALFORMED, f"a block-integer blob begins with {blob[:1].hex() or 'nothing'}"
            )
        data: bytes | memoryview = memoryview(blob)[1:]
        if blob[0] == _HUFFMAN:
            data = unhuffman(data, size)
        else:
            expect_size(blob, size + 1, "a block-integer blob")
        codes = np.frombuffer(data, dtype=np.int8)
        if self.bits == 4:
            codes = _from_nibbles(codes.view(np.uint8), count)
        if int(codes.min()) < -self._largest:
            raise FedftError(
                Code.BLOB_MALFORMED, f"a code is {int(codes.min())}, the lowest is {-self._largest}"
            )
        return codes


INT4, INT8 = BlockInt(4), BlockInt(8)


class BlockIntDecoded:
    """Checked codes and factors."""

    domain = Domain.PLAIN

    def __init__(self, start: int, codes: NDArray[np.int8], scales: NDArray[np.float32], block: int) -> None:
        self._start = start
        self._codes = codes
        self._scales = scales
        self._step = block * max(1, _BLOCKS_AT_ONCE * 512 // block)
        self._block = block
        self.peak = 0.0
        self.squared_norm = 0.0
        for first in range(0, codes.size, self._step):
            values = self._values(first)
            self.peak = max(self.peak, float(np.abs(values).max()))
            self.squared_norm += float(np.dot(values, values))

    def add_into(self, sink: Sink) -> None:
        """Give the values to a sink over the whole manifest."""
        for first in range(0, self._codes.size, self._step):
            sink.add_dense(self._start + first, self._values(first))

    def write_into(self, flat: NDArray[np.float32]) -> None:
        """Write the values into the manifest's flat vector."""
        for first in range(0, self._codes.size, self._step):
            values = self._values(first)
            flat[self._start + first : self._start + first + values.size] = values

    def _values(self, first: int) -> NDArray[np.float64]:
        codes = self._codes[first : first + self._step].astype(np.float64)
        scales = self._scales[first // self._block :][: _ceil(codes.size, self._block)]
        codes *= np.repeat(scales, self._block)[: codes.size]
        return codes


def _to_nibbles(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two codes a byte, the first in the low half, each plus 8; an odd end is filled with the code 0."""
    raised = np.full(_ceil(codes.size, 2) * 2, 8, dtype=np.uint8)
    raised[: codes.size] = codes + np.int8(8)
    return np.bitwise_or(raised[0::2], np.left_shift(raised[1::2], 4), dtype=np.uint8)


def _from_nibbles(data: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    raised = np.empty(data.size * 2, dtype=np.int8)
    raised[0::2] = data & 15
    raised[1::2] = data >> 4
    raised -= 8
    if count % 2 and raised[-1] != 0:
        raise FedftError(Code.BLOB_MALFORMED, "the padding of the codes is not zero")
    return raised[:count]


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
