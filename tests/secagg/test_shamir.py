"""Shamir's shares: any threshold of them give the secret back, fewer say nothing."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.secagg.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, combine, split


def is_probable_prime(number: int, rounds: int = 40) -> bool:
    """Miller and Rabin with random bases: wrong with probability below 4 to the minus ``rounds``."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(rounds):
        value = pow(2 + secrets.randbelow(number - 3), odd, number)
        if value in (1, number - 1):
            continue
        for _ in range(twos - 1):
            value = value * value % number
            if value == number - 1:
                break
        else:
            return False
    return True


def test_the_modulus_is_the_smallest_prime_that_holds_every_secret() -> None:
    assert is_probable_prime(PRIME)
    assert not any(is_probable_prime(number) for number in range(2**128, PRIME))
    assert (PRIME - 1).bit_length() <= 8 * SHARE_BYTES


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_threshold_of_the_shares_gives_the_secret(data: st.DataObject) -> None:
    holders = data.draw(st.integers(1, 100))
    threshold = data.draw(st.integers(1, holders))
    secret = data.draw(st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
    chosen = data.draw(st.permutations(range(1, holders + 1)))[:threshold]

    shares = split(secret, threshold, holders)

    assert combine(chosen, [shares[point - 1] for point in chosen]) == secret


@pytest.mark.parametrize("secret", [bytes(16), b"\xff" * 16])
def test_extreme_secrets(secret: bytes) -> None:
    shares = split(secret, 3, 4)

    assert combine([4, 1, 2], [shares[3], shares[0], shares[1]]) == secret


def test_one_share_too_few_fits_every_secret() -> None:
    # With one share missing, each possible secret is explained by exactly one value of the missing share.
    threshold, secret = 5, b"\x07" * 16
    shares = split(secret, threshold, threshold)
    points = list(range(1, threshold + 1))
    other = secrets.token_bytes(16)

    above = below = 1
    for point in points[:-1]:
        above *= point
        below *= point - threshold
    weight = above * pow(below, -1, PRIME) % PRIME
    rest = int.from_bytes(secret, "little") - weight * shares[-1]
    missing = (int.from_bytes(other, "little") - rest) * pow(weight, -1, PRIME) % PRIME

    assert combine(points, [*shares[:-1], missing]) == other


def test_shares_below_the_threshold_are_uniform() -> None:
    # 2,000 fresh sharings of one fixed secret: the first share's high byte spreads over all values.
    high = [split(bytes(16), 2, 3)[0] >> 120 for _ in range(2000)]

    counts = np.bincount(high, minlength=257)[:256]
    chi_squared = float(((counts - 2000 / 256) ** 2 / (2000 / 256)).sum())
    assert chi_squared < 255 + 6 * np.sqrt(2 * 255)


def test_wrong_use_is_an_error() -> None:
    with pytest.raises(ValueError, match="shares"):
        split(bytes(31), 2, 3)
    with pytest.raises(ValueError, match="shares"):
        split(bytes(16), 4, 3)
    with pytest.raises(ValueError, match="holders"):
        combine([1, 1], [5, 5])
