"""Huffman coding of bytes through zlib, and gap bytes for strictly increasing positions."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from fedft.errors import Code, FedftError

ESCAPE = 255
"""Stands for 255 skipped positions; the gap goes on with the next byte."""


def huffman(data: bytes | memoryview) -> bytes:
    """Code bytes as raw DEFLATE with Huffman codes only: no matches are searched for."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(data) + coder.flush()


def unhuffman(data: bytes | memoryview, size: int) -> bytes:
    """Decode exactly ``size`` bytes from exactly this stream; raises FEDFT-4013 on anything else.

    Never holds more than ``size + 1`` decoded bytes.
    """
    decoder = zlib.decompressobj(-15)
    try:
        # One byte more than expected: a stream that fits ends before it is used.
        decoded = decoder.decompress(data, size + 1)
    except zlib.error as error:
        raise FedftError(Code.BLOB_MALFORMED, f"a blob's DEFLATE stream is broken: {error}") from None
    if len(decoded) != size or not decoder.eof or decoder.unused_data or decoder.unconsumed_tail:
        raise FedftError(Code.BLOB_MALFORMED, f"a blob's DEFLATE stream does not hold exactly {size} bytes")
    return decoded


def gap_bytes(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Code strictly increasing positions as one byte a gap, 255 being an escape."""
    gaps = np.diff(positions, prepend=-1) - 1
    if gaps.size == 0 or int(gaps.max()) < ESCAPE:
        return gaps.astype(np.uint8)
    escapes, rest = np.divmod(gaps, ESCAPE)
    ends = np.cumsum(escapes + 1) - 1
    symbols = np.full(int(ends[-1]) + 1, ESCAPE, dtype=np.uint8)
    symbols[ends] = rest
    return symbols


def positions_of(symbols: NDArray[np.uint8], count: int, size: int) -> NDArray[np.int64]:
    """Invert ``gap_bytes``.

    Raises:
        FedftError: FEDFT-4013 unless the symbols give exactly ``count`` positions below ``size`` and end
            with one. Positions increase strictly by construction.

    """
    final = symbols != ESCAPE
    found = int(np.count_nonzero(final))
    if found != count or (symbols.size > 0 and symbols[-1] == ESCAPE):
        raise FedftError(
            Code.BLOB_MALFORMED, f"gap bytes give {found} positions or end in an escape, not {count}"
        )
    reached = np.cumsum(symbols, dtype=np.int64)
    if found == symbols.size:
        positions = reached + np.arange(count)
    else:
        positions = (reached + np.cumsum(final) - 1)[final]
    if count and int(positions[-1]) >= size:
        raise FedftError(Code.BLOB_MALFORMED, f"gap bytes reach position {int(positions[-1])} of {size}")
    return positions
