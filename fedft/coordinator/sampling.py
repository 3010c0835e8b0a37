"""Choosing the clients of a round."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def select_cohort(clients: Iterable[str], size: int, *, seed: int, round_number: int) -> list[str]:
    """Return ``size`` clients (all if 0 or too few), uniformly at random, in sorted order.

    Each client's place in the draw is a hash of (seed, round, client), so the choice depends neither
    on the order of ``clients`` nor on how many draws were made before: a resumed run draws the same.
    """
    everyone = sorted(set(clients))
    if size == 0 or size >= len(everyone):
        return everyone
    drawn = sorted(everyone, key=lambda client: _ticket(seed, round_number, client))[:size]
    return sorted(drawn)


def replies_needed(cohort: int, minimum: int) -> int:
    """Return how many accepted updates a round needs: ``minimum``, or more than half if it is 0."""
    return min(minimum, cohort) if minimum else cohort // 2 + 1


def _ticket(seed: int, round_number: int, client: str) -> bytes:
    return hashlib.sha256(f"cohort\0{seed}\0{round_number}\0{client}".encode()).digest()
