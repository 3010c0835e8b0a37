"""The positions of the largest magnitudes of a vector, exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.checks import CHUNK

_SAMPLES = 1 << 14
_MARGIN = 1.1


def largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Give the sorted positions of the ``count`` largest magnitudes, fewer when the rest is zero.

    Among equal magnitudes the first ones are taken. A sample guesses a threshold a little too low, so that
    the exact selection runs on few candidates; a wrong guess costs time, never a wrong position.
    """
    candidates = _at_least(values, _guess(values, count))
    if candidates.size < count:
        candidates = np.flatnonzero(values)
    if candidates.size <= count:
        return candidates
    magnitudes = np.abs(values[candidates])
    threshold = np.partition(magnitudes, magnitudes.size - count)[magnitudes.size - count]
    keep = magnitudes >= threshold
    surplus = int(np.count_nonzero(keep)) - count
    if surplus:
        keep[np.flatnonzero(magnitudes == threshold)[-surplus:]] = False
    positions: NDArray[np.int64] = candidates[keep]
    return positions


def _guess(values: NDArray[np.float32], count: int) -> np.float32:
    sample = np.abs(values[:: max(1, values.size // _SAMPLES)])
    rank = sample.size - 1 - int(_MARGIN * count / values.size * sample.size)
    return np.partition(sample, rank)[rank] if rank > 0 else np.float32(0)


def _at_least(values: NDArray[np.float32], threshold: np.float32) -> NDArray[np.int64]:
    if threshold == 0:
        return np.flatnonzero(values)
    found = []
    for first in range(0, values.size, CHUNK):
        found.append(np.flatnonzero(np.abs(values[first : first + CHUNK]) >= threshold) + first)
    return np.concatenate(found)
