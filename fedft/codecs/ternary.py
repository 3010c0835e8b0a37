"""The largest entries of an update as signs, with one factor per tensor."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from fedft.codecs.checks import extent, finite_vector, read_scales
from fedft.codecs.entropy import ESCAPE, gap_bytes, huffman, positions_of, unhuffman
from fedft.codecs.interface import CodecContext, Domain, Sink
from fedft.codecs.manifest import Manifest
from fedft.codecs.selection import largest
from fedft.codecs.spec import TERNARY, CodecSpec, Shard, TernaryParams, TernaryRule
from fedft.errors import Code, FedftError
from fedft.options import Options
from fedft.tensors import Arrays

_HEADER = struct.Struct("<II")
"""Number of entries, number of gap bytes; then the DEFLATE stream, then packed signs to the end."""

_TINY = np.finfo(np.float32).tiny


class TernaryOptions(Options):
    """What a configuration can say of the codec."""

    density: float = Field(0.1, ge=1e-6, le=1, description="share of the entries kept (ternary)")
    rule: TernaryRule = Field("least_squares", description="how the ternary scale is chosen")
    alpha: float = Field(1.0, gt=0, le=1e6, description="factor of the standard deviation (rule compeft)")


_DEFAULTS = TernaryOptions()


@dataclass(frozen=True)
class Ternary:
    """Top-k by magnitude over the whole update, coded as gap bytes, Huffman codes and sign bits.

    Args:
        settings: density (to six decimals), rule and alpha. The rule ``least_squares`` gives each tensor the
            factor mean |x| of its kept entries, which minimises the L2 error; ``compeft`` gives all tensors
            alpha times the standard deviation of the whole update (ComPEFT, arXiv 2311.13171, with top-k over
            the whole update as in its code).

    Needs error feedback: without it a third of what is learned is lost.

    """

    settings: TernaryOptions = _DEFAULTS

    options: ClassVar[type[Options]] = TernaryOptions
    name: ClassVar[str] = "ternary"
    id: ClassVar[int] = TERNARY
    version: ClassVar[int] = 1
    params: ClassVar[type[TernaryParams]] = TernaryParams
    needs_state: ClassVar[bool] = True
    integer_grid: ClassVar[bool] = True

    def configured(self, options: Options) -> Ternary:
        """Return the codec with a density, a rule and its factor."""
        return Ternary(TernaryOptions.model_validate(options.model_dump()))

    @classmethod
    def of(cls, params: TernaryParams) -> Ternary:
        """Build the codec that a shard names; raises FEDFT-4011 on parameters out of range."""
        given: dict[str, object] = {"density": params.density_ppm / 1e6, "rule": params.rule}
        if params.rule == "compeft" or params.alpha != 0:
            given["alpha"] = params.alpha
        try:
            settings = TernaryOptions.model_validate(given)
        except ValidationError as error:
            raise FedftError(
                Code.CODEC_OPTIONS_INVALID, f"ternary with {given}: {error.errors()[0]['msg']}"
            ) from None
        if params.rule == "least_squares" and params.alpha != 0:
            raise FedftError(Code.CODEC_OPTIONS_INVALID, "the least-squares rule has no alpha")
        return cls(settings)

    @property
    def spec(self) -> CodecSpec:
        """What travels with each shard."""
        alpha = self.settings.alpha if self.settings.rule == "compeft" else 0.0
        return CodecSpec(self.id, self.version, TernaryParams(self._density_ppm, self.settings.rule, alpha))

    @property
    def bits_per_parameter(self) -> float:
        """The entropy of independent entries: positions, and one bit for each sign."""
        p = self.settings.density
        rest = -(1 - p) * np.log2(1 - p) if p < 1 else 0.0
        return float(-p * np.log2(p) + rest + p)

    def encode(self, tensors: Arrays, manifest: Manifest, context: CodecContext) -> list[Shard]:
        """Code as one shard; raises FEDFT-4018 when the factor is no contraction and must be one."""
        flat = finite_vector(tensors, manifest)
        positions = largest(flat, self._kept(flat.size))
        kept = flat[positions]
        counts = np.diff(np.searchsorted(positions, manifest.offsets))
        means = _means(np.abs(kept), counts)
        scales = means
        if self.settings.rule == "compeft":
            scales = np.where(counts > 0, self.settings.alpha * np.std(flat, dtype=np.float64), 0)
        if not np.all(scales <= np.finfo(np.float32).max):
            raise FedftError(
                Code.TENSOR_NOT_FINITE, f"alpha {self.settings.alpha} times the deviation is beyond float32"
            )
        if context.error_feedback:
            _require_contraction(scales, means, manifest)
        scales = np.where(scales < _TINY, 0, scales).astype("<f4")
        return [Shard(0, len(manifest.tensors), self.spec, _pack(positions, kept), scales.tobytes())]

    def decode_shard(self, shard: Shard, manifest: Manifest, context: CodecContext) -> TernaryDecoded:
        """Check counts, stream, positions, sign padding and scales."""
        start, end = extent(shard, manifest)
        scales = read_scales(shard, shard.tensor_count)
        positions, negative = _unpack(shard.blob, self._kept(end - start), end - start)
        bounds = manifest.offsets[shard.first_tensor : shard.first_tensor + shard.tensor_count + 1]
        counts = np.diff(np.searchsorted(positions, bounds - start))
        if np.any((counts == 0) & (scales != 0)):
            raise FedftError(Code.CODED_VALUE_INVALID, "a tensor without entries has a scale")
        return TernaryDecoded(positions + start if start else positions, negative, scales, counts)

    @property
    def _density_ppm(self) -> int:
        return round(self.settings.density * 1e6)

    def _kept(self, size: int) -> int:
        return max(1, size * self._density_ppm // 1_000_000)


TERNARY_CODEC = Ternary()


class TernaryDecoded:
    """Checked positions (of the whole manifest's vector), signs and factors."""

    domain = Domain.PLAIN

    def __init__(
        self,
        positions: NDArray[np.int64],
        negative: NDArray[np.uint8],
        scales: NDArray[np.float32],
        counts: NDArray[np.int64],
    ) -> None:
        self._positions = positions
        self._negative = negative
        self._scales = scales
        self._counts = counts
        self.peak = float(scales.max())
        self.squared_norm = float(np.dot(counts, np.square(scales, dtype=np.float64)))

    def add_into(self, sink: Sink) -> None:
        """Give the signed factors to a sink over the whole manifest."""
        sink.add_sparse(self._positions, self._values())

    def write_into(self, flat: NDArray[np.float32]) -> None:
        """Write the signed factors into the manifest's flat vector of zeros."""
        flat[self._positions] = self._values()

    def _values(self) -> NDArray[np.float32]:
        # The sign is the highest bit of a float32.
        bits = np.repeat(self._scales, self._counts).view(np.uint32)
        bits |= self._negative.astype(np.uint32) << 31
        return bits.view(np.float32)


def _means(magnitudes: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    owners = np.repeat(np.arange(counts.size), counts)
    sums = np.bincount(owners, weights=magnitudes, minlength=counts.size)
    return np.divide(sums, np.maximum(counts, 1))


def _require_contraction(scales: NDArray[np.float64], means: NDArray[np.float64], manifest: Manifest) -> None:
    """``‖x - s·sign(x)‖ < ‖x‖`` on a tensor's kept entries exactly when ``0 < s < 2·mean|x|``."""
    bad = np.flatnonzero((means > 0) & (scales >= 2 * means))
    if bad.size:
        i = int(bad[0])
        raise FedftError(
            Code.NOT_A_CONTRACTION,
            f"{manifest.tensors[i].name} would be coded with the factor {scales[i]:.3g}, at least twice "
            f"the mean magnitude {means[i]:.3g} of what is kept; error feedback would diverge",
            hint="use the least_squares rule or a smaller alpha",
        )


def _pack(positions: NDArray[np.int64], kept: NDArray[np.float32]) -> bytes:
    symbols = gap_bytes(positions)
    signs = np.packbits(np.signbit(kept), bitorder="little")
    header = _HEADER.pack(positions.size, symbols.size)
    return b"".join((header, huffman(symbols.data), signs.data))


def _unpack(blob: bytes, most: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Give positions and sign bits; everything is bounded by ``most`` and ``size`` before allocation."""
    if len(blob) < _HEADER.size:
        raise FedftError(Code.BLOB_MALFORMED, f"a ternary blob has {len(blob)} bytes")
    count, symbol_count = _HEADER.unpack_from(blob)
    if count > most or not count <= symbol_count <= count + size // ESCAPE:
        raise FedftError(
            Code.BLOB_MALFORMED,
            f"a ternary blob states {count} entries in {symbol_count} gap bytes, at most {most}",
        )
    split = len(blob) - (count + 7) // 8
    if split < _HEADER.size:
        raise FedftError(
            Code.BLOB_MALFORMED, f"a ternary blob of {len(blob)} bytes has no room for {count} signs"
        )
    view = memoryview(blob)
    symbols = np.frombuffer(unhuffman(view[_HEADER.size : split], symbol_count), dtype=np.uint8)
    signs = np.frombuffer(view[split:], dtype=np.uint8)
    if count % 8 and signs[-1] >> (count % 8):
        raise FedftError(Code.BLOB_MALFORMED, "the padding of the signs is not zero")
    return positions_of(symbols, count, size), np.unpackbits(signs, count=count, bitorder="little")
