"""Shamir's secret sharing of 16-byte secrets (Shamir, CACM 1979) over the integers modulo a prime.

The prime is the smallest above 2¹²⁸, so that every 16-byte secret is an element and a share takes 17 bytes.
Guarantee: fewer than ``threshold`` shares of a secret are independent of it, whatever the computing power.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence

PRIME = 2**128 + 51
SECRET_BYTES = 16
SHARE_BYTES = 17


def split(secret: bytes, threshold: int, holders: int) -> list[int]:
    """Share a secret out to holders 1 to ``holders``; any ``threshold`` of the shares give it back.

    Args:
        secret: 16 bytes.
        threshold: number of shares needed.
        holders: number of shares; at least the threshold.

    Returns:
        the polynomial's values at 1, 2, ..., ``holders``.

    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= holders:
        raise ValueError(f"{threshold} of {holders} shares of {len(secret)} bytes")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "little"))
    return [_evaluate(coefficients, point) for point in range(1, holders + 1)]


def combine(points: Sequence[int], shares: Sequence[int]) -> bytes | None:
    """Give the secret of as many shares as the threshold; None where the result is no 16-byte secret.

    Args:
        points: the holders' numbers, distinct, from 1 on.
        shares: their shares, in the same order.

    """
    weights = _weights_at_zero(tuple(points))
    secret = sum(weight * share for weight, share in zip(weights, shares, strict=True)) % PRIME
    return secret.to_bytes(SECRET_BYTES, "little") if secret >> (8 * SECRET_BYTES) == 0 else None


def _evaluate(coefficients: Sequence[int], point: int) -> int:
    # Points are small, so reducing once at the end is faster than at every step.
    value = 0
    for coefficient in coefficients:
        value = value * point + coefficient
    return value % PRIME


@functools.lru_cache(maxsize=256)
def _weights_at_zero(points: tuple[int, ...]) -> list[int]:
    """Lagrange's weights at zero: ``∏ xⱼ / (xⱼ - xᵢ)`` over all j but i."""
    if len(set(points)) != len(points) or min(points) < 1:
        raise ValueError(f"shares of holders {points}")
    weights = []
    for own in points:
        above = below = 1
        for other in points:
            if other != own:
                above *= other
                below *= other - own
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights
