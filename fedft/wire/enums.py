"""Wire numbers of the closed sets of words; 0 is UNSPECIFIED everywhere and refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from fedft.codecs.spec import DenseType, TernaryRule
from fedft.errors import Code, FedftError
from fedft.statements import PrivacyMechanism, PrivacyUnit
from fedft.wire.messages import InstructionKind

Word = TypeVar("Word", bound=str)


class Words(Generic[Word]):
    """A two-way table of words and their wire numbers."""

    def __init__(self, what: str, numbers: Mapping[Word, int]) -> None:
        self._what = what
        self._numbers = dict(numbers)
        self._words = {number: word for word, number in numbers.items()}

    def number(self, word: Word) -> Any:
        """Give the wire number, as an int; the stubs of protoc want their own enum types."""
        return self._numbers[word]

    def word(self, number: int) -> Word:
        """Give the word; raises FEDFT-4007 when the number is unspecified or unknown."""
        if number not in self._words:
            raise FedftError(Code.FIELD_OUT_OF_BOUNDS, f"{self._what} {number} is unspecified or unknown")
        return self._words[number]


KINDS: Words[InstructionKind] = Words(
    "instruction kind",
    {
        InstructionKind.HELLO: 1,
        InstructionKind.TRAIN: 2,
        InstructionKind.EVALUATE: 3,
        InstructionKind.SKETCH: 4,
        InstructionKind.ADVERTISE: 5,
        InstructionKind.SHARE: 6,
        InstructionKind.RECEIVE: 7,
        InstructionKind.ATTEST: 8,
        InstructionKind.UNMASK: 9,
    },
)
MECHANISMS: Words[PrivacyMechanism] = Words(
    "privacy mechanism", {PrivacyMechanism.DP_SGD: 1, PrivacyMechanism.GAUSSIAN: 2}
)
UNITS: Words[PrivacyUnit] = Words("privacy unit", {PrivacyUnit.EXAMPLE: 1, PrivacyUnit.CLIENT: 2})
DENSE_TYPES: Words[DenseType] = Words("dense type", {"float32": 1, "bfloat16": 2})
RULES: Words[TernaryRule] = Words("ternary rule", {"least_squares": 1, "compeft": 2})
