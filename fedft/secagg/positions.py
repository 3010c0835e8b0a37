"""Which elements travel, chosen alike by all: by a public vector, or by the round's seed."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.selection import largest


def positions_of_largest(public: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Give the ascending positions of the ``count`` largest magnitudes of a public vector.

    The vector must say nothing about single clients: an aggregate that all have, or a noised one.
    """
    return np.sort(largest(public, count)).astype(np.int64)


def random_positions(seed: bytes, size: int, count: int) -> NDArray[np.int64]:
    """Give ``count`` of ``size`` positions, ascending, from SHAKE-256 of the seed; the same everywhere."""
    stream = hashlib.shake_256(b"fedft secagg positions v1\0" + seed).digest(8 * size)
    order = np.argsort(np.frombuffer(stream, dtype="<u8"), kind="stable")
    return np.sort(order[:count]).astype(np.int64)
