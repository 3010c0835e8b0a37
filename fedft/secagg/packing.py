"""Small integers as digits of machine words, whose sums over all clients stay exact under masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedft.errors import Code, FedftError
from fedft.secagg.masks import Words

WORD_BITS = 64
MAX_ELEMENTS = 1 << 30
MAX_BASE = 1 << 32
_CHUNK = 1 << 13
"""Words unpacked at a time: the temporaries stay in the cache."""

_LANES = 64
"""Words come in groups of 64, which take a whole number of 64-bit words on the wire at every width."""


@dataclass(frozen=True)
class Packing:
    """Digits from 0 to ``largest``, several in a word, in base ``clients · largest + 1``.

    The sum of as many words as there are clients holds the sum of each digit without a carry into the next,
    so adding words modulo 2⁶⁴ adds all digits exactly. A word needs only its low ``width`` bits, and 2 to the
    width divides 2⁶⁴, so masks of 64 bits are cut to the width and still cancel; only those bits travel.
    With digits from -K to K, raised by K, the base is the 2nK + 1 values that a sum of n can take.

    Args:
        elements: number of digits d.
        largest: largest digit of one client.
        clients: number of clients n whose words may be added.

    Raises:
        FedftError: FEDFT-8819 when a number is out of range.

    """

    elements: int
    largest: int
    clients: int

    def __post_init__(self) -> None:
        good = 1 <= self.elements <= MAX_ELEMENTS and self.largest >= 1 and self.clients >= 1
        if not good or self.base > MAX_BASE:
            raise FedftError(
                Code.VECTOR_NOT_PACKABLE,
                f"{self.elements} digits up to {self.largest} of {self.clients} clients cannot be packed",
                hint=f"at most {MAX_ELEMENTS} digits, and clients times the largest below {MAX_BASE}",
            )

    @property
    def base(self) -> int:
        """Number of values that a digit's sum can take."""
        return self.clients * self.largest + 1

    @cached_property
    def digits(self) -> int:
        """Digits in a word: as many as fit, at least two, so that rounding up costs under half a bit each."""
        count = 2
        while self.base ** (count + 1) <= 1 << WORD_BITS:
            count += 1
        return count

    @cached_property
    def width(self) -> int:
        """Bits of a word that travel."""
        return int(self.base**self.digits - 1).bit_length()

    @cached_property
    def words(self) -> int:
        """Number of words, a multiple of 64; the last ones may hold zeros."""
        return -(-self.elements // (self.digits * _LANES)) * _LANES

    @property
    def nbytes(self) -> int:
        """Bytes of the words on the wire."""
        return self.words * self.width // 8

    def pack(self, values: NDArray[np.integer]) -> Words:
        """Put (elements,) digits into (words,) uint64; digit j of word i is element j · words + i.

        Raises:
            FedftError: FEDFT-8818 when there are more or fewer digits, or one is out of range.

        """
        if values.shape != (self.elements,) or values.dtype.kind not in "iu":
            raise FedftError(
                Code.MASKED_WORDS_MISMATCH,
                f"{values.dtype}{list(values.shape)} to mask, the round has {self.elements} digits",
            )
        if int(values.min()) < 0 or int(values.max()) > self.largest:
            raise FedftError(Code.MASKED_WORDS_MISMATCH, f"a digit to mask lies outside 0 to {self.largest}")
        padded = np.zeros(self.digits * self.words, dtype=values.dtype)
        padded[: self.elements] = values
        rows = padded.reshape(self.digits, self.words)
        words: Words = rows[-1].astype(np.uint64)
        for row in rows[-2::-1]:
            words *= np.uint64(self.base)
            np.add(words, row, out=words, dtype=np.uint64, casting="unsafe")
        return words

    def unpack(self, words: Words, count: int) -> NDArray[np.int64]:
        """Give the (elements,) sums of ``count`` clients' digits that are in the sum of their words.

        Raises:
            FedftError: FEDFT-8824 when the words are no such sum: someone's masks or digits were not what
                the protocol says.

        """
        sums = np.empty((self.digits, self.words), dtype=np.int64)
        spare = False
        for first in range(0, self.words, _CHUNK):
            rest = words[first : first + _CHUNK] & np.uint64((1 << self.width) - 1)
            for row in sums[:, first : first + _CHUNK]:
                quotient = rest // np.uint64(self.base)
                np.subtract(rest, quotient * np.uint64(self.base), out=row, casting="unsafe")
                rest = quotient
            spare |= bool(rest.any())
        flat = sums.reshape(-1)
        if spare or flat[self.elements :].any() or int(flat.max()) > count * self.largest:
            raise FedftError(
                Code.UNMASKING_FAILED,
                f"the unmasked words are not a sum of {count} clients' digits up to {self.largest}",
                hint="a client sent something else than its masked digits; the round is lost",
            )
        return flat[: self.elements]

    def to_bytes(self, words: Words) -> bytes:
        """Give the low ``width`` bits of (words,) uint64, without gaps."""
        columns = words.reshape(_LANES, -1) & np.uint64((1 << self.width) - 1)
        packed = np.zeros((self.width, columns.shape[1]), dtype="<u8")
        for lane, row in enumerate(columns):
            at, shift = divmod(lane * self.width, WORD_BITS)
            packed[at] |= row << np.uint64(shift)
            if shift + self.width > WORD_BITS:
                packed[at + 1] |= row >> np.uint64(WORD_BITS - shift)
        return packed.tobytes()

    def from_bytes(self, data: bytes) -> Words:
        """Give (words,) uint64 below 2 to the ``width``; raises FEDFT-8818 on another number of bytes."""
        if len(data) != self.nbytes:
            raise FedftError(
                Code.MASKED_WORDS_MISMATCH, f"{len(data)} bytes of masked words, the round has {self.nbytes}"
            )
        packed = np.frombuffer(data, dtype="<u8").reshape(self.width, -1)
        columns = np.empty((_LANES, packed.shape[1]), dtype=np.uint64)
        for lane, row in enumerate(columns):
            at, shift = divmod(lane * self.width, WORD_BITS)
            np.right_shift(packed[at], np.uint64(shift), out=row)
            if shift + self.width > WORD_BITS:
                row |= packed[at + 1] << np.uint64(WORD_BITS - shift)
        columns &= np.uint64((1 << self.width) - 1)
        return columns.reshape(-1)
