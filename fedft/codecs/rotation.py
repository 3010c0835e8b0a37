"""The randomised Hadamard rotation of a flat vector, in blocks, from a seed that the round shares."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Elements rotated together; the vector is padded with zeros to a multiple."""

_BLOCKS_AT_ONCE = 16
_BUTTERFLIES = int(np.log2(BLOCK))
_SIDE = 64


def padded_size(elements: int) -> int:
    """Round up to whole blocks."""
    return -(-elements // BLOCK) * BLOCK


def signs(seed: bytes, elements: int) -> NDArray[np.float32]:
    """Give ±1 for each element of the padded vector, from SHAKE-256 of the seed; the same everywhere."""
    stream = hashlib.shake_256(b"fedft rotation v1\0" + seed).digest(padded_size(elements) // 8)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), bitorder="little")
    return np.where(bits, np.float32(-1), np.float32(1))


def rotate(flat: NDArray[np.float32], seed: bytes) -> NDArray[np.float32]:
    """Rotate n float32 elements into ``padded_size(n)`` coordinates, norm-preserving in each block.

    ``H₄₀₉₆ = H₆₄ ⊗ H₆₄``, so two products by a 64×64 matrix do it at the speed of the vendor's GEMM. The
    last bit may differ between machines; only the sender rotates, so nobody compares it.
    """
    padded = np.zeros(padded_size(flat.size), dtype=np.float32)
    padded[: flat.size] = flat
    padded *= signs(seed, flat.size)
    hadamard = _hadamard(_SIDE) / np.float32(_SIDE)
    half = padded.reshape(-1, _SIDE) @ hadamard
    squares = half.reshape(-1, _SIDE, _SIDE)
    rotated: NDArray[np.float32] = np.matmul(_hadamard(_SIDE), squares).reshape(-1)
    return rotated


def unrotate(coordinates: NDArray[np.float64], seed: bytes, elements: int) -> NDArray[np.float64]:
    """Turn float64 coordinates back into ``elements`` values.

    Additions and subtractions in one fixed order, so that every machine gives the same bits.
    """
    values = coordinates.copy()
    step = _BLOCKS_AT_ONCE * BLOCK
    for first in range(0, values.size, step):
        _butterflies(values[first : first + step])
    values *= 1.0 / _SIDE
    values *= signs(seed, elements)
    return values[:elements]


def _butterflies(values: NDArray[np.float64]) -> None:
    for level in range(_BUTTERFLIES):
        pairs = values.reshape(-1, 2, 1 << level)
        total = pairs[:, 0] + pairs[:, 1]
        np.subtract(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = total


def _hadamard(size: int) -> NDArray[np.float32]:
    matrix = np.ones((1, 1), dtype=np.float32)
    while matrix.shape[0] < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
