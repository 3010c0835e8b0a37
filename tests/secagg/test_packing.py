"""Digits in words: sums are exact, and the width keeps to the bits that a sum needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.errors import FedftError
from fedft.secagg.packing import Packing


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sum_of_words_holds_the_sum_of_every_digit(data: st.DataObject) -> None:
    clients = data.draw(st.integers(1, 100))
    largest = data.draw(st.sampled_from([1, 2, 14, 30, 254, 5000]))
    elements = data.draw(st.integers(1, 3000))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    packing = Packing(elements, largest, clients)
    values = rng.integers(0, largest, size=(clients, elements), endpoint=True)
    values[0], values[-1] = largest, 0

    total = np.zeros(packing.words, dtype=np.uint64)
    for row in values:
        data_on_the_wire = packing.to_bytes(packing.pack(row))
        assert len(data_on_the_wire) == packing.nbytes
        total += packing.from_bytes(data_on_the_wire)

    assert np.array_equal(packing.unpack(total, clients), values.sum(axis=0))


@settings(max_examples=30, deadline=None)
@given(clients=st.integers(2, 60), largest=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_masks_of_64_bits_cancel_in_the_bits_that_travel(clients: int, largest: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    packing = Packing(500, largest, clients)
    values = rng.integers(0, largest, size=(clients, 500), endpoint=True)
    masks = rng.integers(0, 2**64, size=(clients, packing.words), dtype=np.uint64)
    masks[-1] = -masks[:-1].sum(axis=0, dtype=np.uint64)

    total = np.zeros(packing.words, dtype=np.uint64)
    for row, mask in zip(values, masks, strict=True):
        total += packing.from_bytes(packing.to_bytes(packing.pack(row) + mask))

    assert np.array_equal(packing.unpack(total, clients), values.sum(axis=0))


@pytest.mark.parametrize("clients", [3, 5, 10, 30, 100, 256])
@pytest.mark.parametrize("half", [0.5, 1, 7, 15, 127, 1000])
def test_bits_for_a_parameter(clients: int, half: float) -> None:
    packing = Packing(1_000_000, int(2 * half), clients)

    bits = 8 * packing.nbytes / packing.elements

    assert bits <= math.log2(2 * clients * half + 1) + 0.5


def test_known_widths() -> None:
    ternary_of_ten = Packing(1_000_000, 2, 10)

    assert (ternary_of_ten.base, ternary_of_ten.digits, ternary_of_ten.width) == (21, 14, 62)


@pytest.mark.parametrize("extra", [0, 1])
def test_the_full_range_fits_and_one_more_is_seen(extra: int) -> None:
    packing = Packing(64, 2, 3)
    words = packing.pack(np.full(64, 2)) * np.uint64(3)
    if not extra:
        assert packing.unpack(words, 3).tolist() == [6] * 64
        return
    with pytest.raises(FedftError, match="FEDFT-8824"):
        packing.unpack(words, 2)


def test_random_words_are_no_sum() -> None:
    packing = Packing(10_000, 2, 10)
    words = np.random.default_rng(0).integers(0, 2**64, size=packing.words, dtype=np.uint64)

    with pytest.raises(FedftError, match="FEDFT-8824"):
        packing.unpack(words, 10)


@pytest.mark.parametrize(
    "values", [np.zeros(9, dtype=np.int64), np.full(10, 3), np.full(10, -1), np.zeros(10)]
)
def test_digits_that_do_not_fit(values: np.ndarray) -> None:
    with pytest.raises(FedftError, match="FEDFT-8818"):
        Packing(10, 2, 3).pack(values)


@pytest.mark.parametrize("change", [-1, 1])
def test_other_numbers_of_bytes(change: int) -> None:
    packing = Packing(10, 2, 3)

    with pytest.raises(FedftError, match="FEDFT-8818"):
        packing.from_bytes(bytes(packing.nbytes + change))


@pytest.mark.parametrize(("elements", "largest", "clients"), [(0, 2, 3), (5, 0, 3), (5, 2**31, 3), (5, 2, 0)])
def test_shapes_out_of_range(elements: int, largest: int, clients: int) -> None:
    with pytest.raises(FedftError, match="FEDFT-8819"):
        Packing(elements, largest, clients)
