"""Classification samples: a text, or a pair of texts, and its class."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from fedft.config.schema import DataSection, TaskSection
from fedft.data.records import Records, where
from fedft.data.report import DataReport
from fedft.data.samples import (
    ClassSample,
    Tokenizer,
    each_record,
    encodable,
    fit_samples,
    group_of,
)
from fedft.data.templates import label_index


def class_samples(
    records: Records,
    data: DataSection,
    task: TaskSection,
    tokenizer: Tokenizer,
    *,
    skip_unreadable: bool = False,
) -> tuple[list[ClassSample], DataReport]:
    """Token ids and class of every record; a record whose text is blank is empty.

    With ``skip_unreadable`` a record that cannot be read gives no sample, and no record is an error.

    Raises:
        FedftError: FEDFT-3005 missing field, FEDFT-3023 unknown label, FEDFT-3024 too long,
            FEDFT-3025 nothing left.

    """
    names = [name for name in (data.fields.text, data.fields.text_pair) if name]

    def read(index: int) -> _Row:
        records.require_at(index, *names, data.fields.label)
        label = label_index(records[index][data.fields.label], task.labels, where(records, index))
        texts = encodable(tuple(str(records[index][name]) for name in names))
        return _Row(texts, label, group_of(records, index, data.fields.group))

    rows = each_record(range(len(records)), read, skip_unreadable=skip_unreadable)
    columns = [[row.texts[column] if row else "" for row in rows] for column in range(len(names))]
    encoded = tokenizer(*columns, verbose=False) if rows else {"input_ids": ()}
    types = encoded.get("token_type_ids", [()] * len(rows))
    built = [
        ClassSample(tuple(ids), tuple(type_ids), row.label, row.group)
        if row and row.texts[0].strip()
        else None
        for row, ids, type_ids in zip(rows, encoded["input_ids"], types, strict=True)
    ]

    def cut(index: int, sample: ClassSample) -> ClassSample | None:
        def shorten(index: int) -> ClassSample:
            texts = [column[index] for column in columns]
            short = tokenizer(*texts, truncation=True, max_length=task.max_length)
            type_ids = tuple(short.get("token_type_ids", ()))
            return replace(sample, ids=tuple(short["input_ids"]), type_ids=type_ids)

        (found,) = each_record([index], shorten, skip_unreadable=skip_unreadable)
        return found

    return fit_samples(built, cut, records, task, skip_unreadable=skip_unreadable)


class _Row(NamedTuple):
    """What a record holds: its text or pair of texts, the index of its class, its group."""

    texts: tuple[str, ...]
    label: int
    group: str
