"""Measuring codecs on given updates: bytes, error and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedft.codecs.interface import Codec, CodecContext
from fedft.codecs.manifest import Manifest
from fedft.codecs.registry import codec_names, make_codec
from fedft.codecs.spec import Shard
from fedft.codecs.update import decode, decode_flat
from fedft.tensors import Arrays

_FLOAT32_BITS = 32


@dataclass(frozen=True)
class CodecFigures:
    """Medians over the updates.

    ``bits`` per parameter of blobs and scales; ``ratio`` to float32; ``error`` the relative L2 error of
    one update on its own, without error feedback; times in milliseconds of this process.
    """

    name: str
    bits: float
    ratio: float
    error: float
    encode_ms: float
    decode_ms: float


def measure_codecs(updates: Sequence[Arrays], names: Sequence[str] = ()) -> list[CodecFigures]:
    """Code every update with every codec (or those named) and return the figures."""
    return [_measure(make_codec(name), updates) for name in names or codec_names()]


def relative_error(
    tensors: Arrays, shards: Sequence[Shard], manifest: Manifest, context: CodecContext
) -> float:
    """Return ``‖x - C(x)‖ / ‖x‖`` over all tensors; 0 for an update of zeros."""
    flat = manifest.flatten(tensors).astype(np.float64)
    size = float(np.linalg.norm(flat))
    return float(np.linalg.norm(flat - decode_flat(shards, manifest, context))) / size if size else 0.0


def _measure(codec: Codec, updates: Sequence[Arrays]) -> CodecFigures:
    rows = [_one(codec, update, number) for number, update in enumerate(updates)]
    bits, error, encode, back = (statistics.median(column) for column in zip(*rows, strict=True))
    return CodecFigures(codec.name, bits, _FLOAT32_BITS / bits, error, 1e3 * encode, 1e3 * back)


def _one(codec: Codec, update: Arrays, number: int) -> tuple[float, float, float, float]:
    manifest = Manifest.of(update)
    context = CodecContext(seed=number.to_bytes(8, "little"), generator=np.random.default_rng(number))
    start = time.perf_counter()
    shards = codec.encode(update, manifest, context)
    middle = time.perf_counter()
    decode(shards, manifest, context)
    end = time.perf_counter()
    bits = 8 * sum(shard.nbytes for shard in shards) / manifest.total_elements
    return bits, relative_error(update, shards, manifest, context), middle - start, end - middle
