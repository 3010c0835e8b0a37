"""Uniform integers from the operating system's randomness, expanded by AES-256 under fresh keys."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedft.secagg.masks import Words, add_mask

WordSource = Callable[[int], Words]
"""Gives so many independent uniform 64-bit words."""


def secure_words(count: int) -> Words:
    """Give independent uniform 64-bit words; no seed, no state."""
    words = np.zeros(count, dtype=np.uint64)
    add_mask(words, os.urandom(32))
    return words


def uniform_below(bound: int, count: int, source: WordSource) -> NDArray[np.uint64]:
    """Give (count,) integers uniform on 0 to ``bound`` - 1, exactly.

    Words that would favour some integers are drawn again.

    Args:
        bound: 1 to 2⁶³.
        count: how many.
        source: of the words.

    """
    words = source(count)
    last = np.uint64((1 << 64) // bound * bound - 1)
    while (bad := np.flatnonzero(words > last)).size:
        words[bad] = source(bad.size)
    return words % np.uint64(bound)
