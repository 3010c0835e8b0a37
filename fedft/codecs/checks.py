"""Checks that all codecs share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.interface import Floats
from fedft.codecs.manifest import Manifest
from fedft.codecs.spec import Shard
from fedft.errors import Code, FedftError
from fedft.tensors import Arrays

CHUNK = 1 << 15
"""Elements handled at a time, so that temporaries stay in the cache."""


def finite_vector(tensors: Arrays, manifest: Manifest) -> NDArray[np.float32]:
    """Flatten tensors to encode; raises FEDFT-4015 when they do not fit, FEDFT-4016 on NaN or infinity."""
    flat = manifest.flatten(tensors)
    if not all(np.isfinite(flat[first : first + CHUNK]).all() for first in range(0, flat.size, CHUNK)):
        where = manifest.tensors[int(np.searchsorted(manifest.offsets, _first_bad(flat), "right")) - 1]
        raise FedftError(Code.TENSOR_NOT_FINITE, f"{where.name} holds NaN or infinity and cannot be encoded")
    return flat


def extent(shard: Shard, manifest: Manifest) -> tuple[int, int]:
    """Give start and end of a shard's elements; raises FEDFT-4012 when the manifest has no such tensors."""
    last = shard.first_tensor + shard.tensor_count
    if shard.first_tensor < 0 or shard.tensor_count < 1 or last > len(manifest.tensors):
        raise FedftError(
            Code.SHARDS_INCOMPLETE,
            f"a shard covers tensors {shard.first_tensor} to {last - 1}, "
            f"the manifest has {len(manifest.tensors)}",
        )
    return int(manifest.offsets[shard.first_tensor]), int(manifest.offsets[last])


def expect_size(blob: bytes, size: int, what: str) -> None:
    """Raise FEDFT-4013 unless the blob has exactly this many bytes."""
    if len(blob) != size:
        raise FedftError(Code.BLOB_MALFORMED, f"{what} has {len(blob)} bytes, expected {size}")


def read_scales(shard: Shard, count: int) -> NDArray[np.float32]:
    """Read a shard's factors; raises FEDFT-4014 unless there are ``count``, all finite and not negative.

    Subnormal factors are refused too: no honest update has them, and arithmetic on them is slow.
    """
    if len(shard.scales) != 4 * count:
        raise FedftError(
            Code.CODED_VALUE_INVALID, f"{len(shard.scales)} bytes of scales, expected {4 * count}"
        )
    scales = np.frombuffer(shard.scales, dtype="<f4")
    tiny = np.finfo(np.float32).tiny
    good = np.isfinite(scales) & ((scales == 0) | (scales >= tiny))
    if not good.all():
        raise FedftError(
            Code.CODED_VALUE_INVALID, f"scale {float(scales[_first_bad(scales, good)])!r} is not allowed"
        )
    return scales


def squared_norm(values: Floats) -> float:
    """Sum of squares, in float64."""
    total = 0.0
    for first in range(0, values.size, CHUNK):
        chunk = values[first : first + CHUNK].astype(np.float64)
        total += float(np.dot(chunk, chunk))
    return total


def finite_peak(values: Floats) -> float:
    """Give the largest magnitude; raises FEDFT-4014 when a value is NaN or infinite."""
    peak = max(float(values.max()), -float(values.min()))
    if not np.isfinite(peak):
        raise FedftError(Code.CODED_VALUE_INVALID, "a value is NaN or infinite")
    return abs(peak)


def _first_bad(values: Floats, good: NDArray[np.bool_] | None = None) -> int:
    return int(np.argmin(np.isfinite(values) if good is None else good))
