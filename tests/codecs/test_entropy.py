from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.codecs.entropy import gap_bytes, huffman, positions_of, unhuffman
from fedft.errors import FedftError


@given(st.binary(max_size=2000))
def test_huffman_round_trip(data: bytes) -> None:
    assert unhuffman(huffman(data), len(data)) == data


def test_huffman_is_plain_deflate() -> None:
    """Any DEFLATE decoder reads it, and it searches for no matches."""
    data = b"abc" * 1000
    assert zlib.decompress(huffman(data), -15) == data
    assert len(huffman(data)) > 500


@given(st.lists(st.integers(0, 3000), unique=True, max_size=50))
def test_gap_bytes_round_trip(positions: list[int]) -> None:
    array = np.array(sorted(positions), dtype=np.int64)
    symbols = gap_bytes(array)
    assert np.array_equal(positions_of(symbols, array.size, 3001), array)
    assert array.size <= symbols.size <= array.size + 3001 // 255


@pytest.mark.parametrize("gap", [0, 254, 255, 256, 509, 510, 511, 70_000])
def test_escapes_at_their_boundaries(gap: int) -> None:
    array = np.array([gap, 2 * gap + 1])
    symbols = gap_bytes(array)
    assert symbols.tolist() == 2 * ([255] * (gap // 255) + [gap % 255])
    assert np.array_equal(positions_of(symbols, 2, 2 * gap + 2), array)


@pytest.mark.parametrize(
    ("symbols", "count", "size"),
    [
        ([0, 255], 1, 1000),  # ends in an escape
        ([255], 0, 1000),
        ([0, 0], 1, 1000),  # more than stated
        ([0], 2, 1000),  # fewer than stated
        ([9], 1, 9),  # one past the end
        ([255, 0], 1, 255),
    ],
)
def test_bad_gap_bytes_are_refused(symbols: list[int], count: int, size: int) -> None:
    with pytest.raises(FedftError, match="FEDFT-4013"):
        positions_of(np.array(symbols, dtype=np.uint8), count, size)


@pytest.mark.parametrize(
    "data",
    [
        huffman(b"x" * 99),
        huffman(b"x" * 101),
        huffman(b"x" * 100)[:-1],
        huffman(b"x" * 100) + b"\0",
        b"",
        b"\xff\xff",
        zlib.compress(b"x" * 100),
    ],
)
def test_streams_of_another_length_are_refused(data: bytes) -> None:
    with pytest.raises(FedftError, match="FEDFT-4013"):
        unhuffman(data, 100)


def test_a_bomb_is_not_inflated() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = bomb.compress(bytes(200_000_000)) + bomb.flush()
    tracemalloc.start()
    with pytest.raises(FedftError, match="FEDFT-4013"):
        unhuffman(data, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(data) + 100_000, "zlib keeps the rest of the input, not of the output"
