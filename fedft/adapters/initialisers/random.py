"""A random orthonormal frame that every machine computes to the same bits."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedft.adapters.frame import Frame
from fedft.adapters.initialisers.interface import Initialiser, InitialiserContext

_STAGES = 3
_Matrix = npt.NDArray[np.float64]


def orthonormal_columns(rows: int, columns: int, key: str) -> _Matrix:
    """Return ``(rows, columns)`` float64 with exactly orthonormal columns, a function of ``key`` alone.

    Three rounds, each a random signed permutation of the rows and then a Hadamard transform of blocks
    whose sizes are powers of four. Such a transform has entries ``±2^-k``, so that every number on the
    way is a multiple of ``2^-24`` below 1 (2^-3k in general) and no operation rounds: the result does not
    depend on the order of summation, the library or the processor. The rounds mix across blocks, so that
    the columns are dense for every number of rows above four.
    """
    x = np.eye(rows, columns)
    for stage in range(_STAGES):
        order, signs = _signed_permutation(rows, f"{key}/{stage}")
        x = _block_hadamard(x[order] * signs[:, None])
    return x


def _signed_permutation(size: int, key: str) -> tuple[npt.NDArray[np.intp], _Matrix]:
    # SHAKE-256 is a fixed function; a numpy generator's permutation may change with numpy's version.
    stream = hashlib.shake_256(key.encode()).digest(9 * size)
    order = np.argsort(np.frombuffer(stream, "<u8", size), kind="stable")
    bits = np.frombuffer(stream, np.uint8, size, offset=8 * size) & 1
    signs = 1.0 - 2.0 * bits.astype(np.float64)
    return order, signs


def _block_hadamard(x: _Matrix) -> _Matrix:
    """Transform consecutive blocks of rows, each the largest power of four that still fits."""
    done = 0
    parts = []
    while done < len(x):
        block = 4 ** ((len(x) - done).bit_length() - 1 >> 1)
        parts.append(_hadamard(x[done : done + block]))
        done += block
    return np.concatenate(parts)


def _hadamard(x: _Matrix) -> _Matrix:
    """Apply the orthonormal Sylvester-Hadamard matrix, a Kronecker power of the 4 by 4 one, to the rows."""
    rows, columns = x.shape
    left = 1
    while left < rows:
        factor = min(64, rows // left)
        x = _sylvester(factor) @ x.reshape(left, factor, -1)
        left *= factor
    return x.reshape(rows, columns)


def _sylvester(size: int) -> _Matrix:
    """Return the orthonormal Hadamard matrix of size 4, 16 or 64."""
    pair = np.array([[1.0, 1.0], [1.0, -1.0]])
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron(matrix, pair)
    return matrix / math.sqrt(size)


def _build(weight: Tensor, context: InitialiserContext) -> Frame:
    """Return two frames drawn for (seed, module, side), and ``R0 = 0``."""
    rows, columns = weight.shape
    key = f"fedft/random-frame/1/{context.seed}/{context.name}"
    b = torch.from_numpy(orthonormal_columns(rows, context.rank, f"{key}/out")).float()
    a = torch.from_numpy(orthonormal_columns(columns, context.rank, f"{key}/in")).float()
    return Frame(b, a.T.contiguous(), torch.zeros(context.rank, context.rank), context.scale)


RANDOM = Initialiser(
    name="random",
    build=_build,
    needs="nothing",
    preserves_function=True,
    reproducible=True,
    reads_data=False,
)
