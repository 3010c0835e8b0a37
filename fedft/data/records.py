"""Records in memory: dictionaries with the file that each came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from fedft.errors import Code, FedftError

Record = dict[str, Any]


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """Rows with their origins.

    Attributes:
        rows: the records.
        origins: ``origins[i]`` names the file of ``rows[i]``, or the source as a whole.
        numbers: the places of the rows in their origins, from 1; left out: the rows are one origin's, whole.

    """

    rows: tuple[Record, ...]
    origins: tuple[str, ...]
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.numbers:
            object.__setattr__(self, "numbers", tuple(range(1, len(self.rows) + 1)))
        if not len(self.rows) == len(self.origins) == len(self.numbers):
            raise ValueError(
                f"{len(self.rows)} rows, {len(self.origins)} origins, {len(self.numbers)} numbers"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return Records(self.rows[index], self.origins[index], self.numbers[index])
        return self.rows[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.rows)

    def take(self, indices: Iterable[int]) -> Records:
        """The records at these positions, in this order."""
        chosen = list(indices)
        return Records(
            tuple(self.rows[i] for i in chosen),
            tuple(self.origins[i] for i in chosen),
            tuple(self.numbers[i] for i in chosen),
        )

    def sample(self, limit: int, seed: int) -> Records:
        """At most ``limit`` records drawn without replacement, in their old order; 0 means all."""
        if limit == 0 or limit >= len(self):
            return self
        chosen = np.random.default_rng(seed).choice(len(self), size=limit, replace=False)
        return self.take(sorted(chosen.tolist()))

    def require(self, *fields: str) -> None:
        """Raise FEDFT-3005 at the first record that lacks one of the named fields or holds null in it."""
        for index in range(len(self)):
            self.require_at(index, *fields)

    def require_at(self, index: int, *fields: str) -> None:
        """Raise FEDFT-3005 if this record lacks one of the named fields or holds null in it."""
        for field in fields:
            if self.rows[index].get(field) is None:
                raise missing_field(self, index, field)


def where(records: Records, index: int) -> str:
    """How messages name a record, as its file counts it: "record 3 of train.jsonl"."""
    return f"record {records.numbers[index]} of {records.origins[index]}"


def missing_field(records: Records, index: int, field: str) -> FedftError:
    """The error for a record without a value in a field that the configuration names."""
    place = where(records, index)
    if field in records[index]:
        return FedftError(
            Code.FIELD_MISSING,
            f"{place} has nothing in field {field!r} (null)",
            hint="fill it in, or leave the record out",
        )
    present = ", ".join(map(repr, records[index])) or "none"
    return FedftError(
        Code.FIELD_MISSING,
        f"{place} has no field {field!r}; it has {present}",
        hint="name the right field in data.fields or data.partition.field",
    )


def merge(parts: Iterable[Records]) -> Records:
    """Records of several files, one after the other."""
    collected = list(parts)
    return Records(
        tuple(row for part in collected for row in part.rows),
        tuple(origin for part in collected for origin in part.origins),
        tuple(number for part in collected for number in part.numbers),
    )
