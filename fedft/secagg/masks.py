"""Masks: AES-256 in counter mode, added to or taken from 64-bit words."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_CHUNK = 1 << 14
"""Words expanded at a time: 128 KiB stay in the cache."""

_ZEROS = bytes(8 * _CHUNK)
_BLOCK = 16


def add_mask(words: Words, key: bytes, *, subtract: bool = False) -> None:
    """Add the stream of a key to words in place, modulo 2⁶⁴, or subtract it.

    The counter starts at zero: a key must mask one vector in its life, which the derivation of keys and the
    client's journal see to.

    Args:
        words: (n,) uint64.
        key: 32 bytes.
        subtract: take the stream away instead.

    """
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(_BLOCK))).encryptor()
    buffer = np.empty(8 * min(words.size, _CHUNK) + _BLOCK - 1, dtype=np.uint8)
    combine = np.subtract if subtract else np.add
    for first in range(0, words.size, _CHUNK):
        part = words[first : first + _CHUNK]
        encryptor.update_into(_ZEROS[: 8 * part.size], buffer.data)
        combine(part, buffer[: 8 * part.size].view("<u8"), out=part)
