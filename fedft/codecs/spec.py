"""What travels of a coded update: which codec, its parameters, the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DENSE, TERNARY, ROTATED, BLOCK_INT, NAMED = 1, 2, 3, 4, 5
"""Codec ids on the wire; never reused (proto/fedft/v1/tensors.proto)."""

DenseType = Literal["float32", "bfloat16"]
TernaryRule = Literal["least_squares", "compeft"]


@dataclass(frozen=True)
class DenseParams:
    """The number format of a dense shard."""

    dtype: DenseType


@dataclass(frozen=True)
class TernaryParams:
    """Most entries kept (millionths of the shard), the rule for the scale, ComPEFT's factor."""

    density_ppm: int
    rule: TernaryRule
    alpha: float = 0.0


@dataclass(frozen=True)
class RotatedParams:
    """Bits per coordinate."""

    bits: int


@dataclass(frozen=True)
class BlockIntParams:
    """Bits per element and elements per scale."""

    bits: int
    block: int


@dataclass(frozen=True)
class NamedParams:
    """A codec of another package: its registered name, and its options as JSON."""

    name: str
    options: str


Params = DenseParams | TernaryParams | RotatedParams | BlockIntParams | NamedParams


@dataclass(frozen=True)
class CodecSpec:
    """A codec, the version of its bytes, and its parameters."""

    codec_id: int
    version: int
    params: Params


@dataclass(frozen=True)
class Shard:
    """One coded run of ``tensor_count`` consecutive tensors of the manifest from ``first_tensor`` on.

    ``scales`` holds little-endian float32 factors; how many is the codec's business.
    """

    first_tensor: int
    tensor_count: int
    codec: CodecSpec
    blob: bytes
    scales: bytes = b""

    @property
    def nbytes(self) -> int:
        """Bytes of payload, without the message around them."""
        return len(self.blob) + len(self.scales)
