"""Classification samples: a text, or a pair of texts, and its class."""

from __future__ import annotations

from fedft.config.schema import DataSection, TaskSection
from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.data.samples import ClassSample, Tokenizer, field_text, fit_samples, group_of, where
from fedft.data.templates import label_index


def class_samples(
    records: Records, data: DataSection, task: TaskSection, tokenizer: Tokenizer
) -> tuple[list[ClassSample], DataReport]:
    """Token ids and class of every record; a record whose text is blank is empty.

    Raises:
        FedftError: FEDFT-3005 missing field, FEDFT-3023 unknown label, FEDFT-3024 too long,
            FEDFT-3025 nothing left.

    """
    names = [name for name in (data.fields.text, data.fields.text_pair) if name]
    records.require(*names, data.fields.label)
    columns = [[str(row[name]) for row in records] for name in names]
    encoded = tokenizer(*columns, verbose=False)
    no_types = [()] * len(records)
    types = encoded.get("token_type_ids", no_types)

    def build(index: int) -> ClassSample | None:
        label = label_index(records[index][data.fields.label], task.labels, where(records, index))
        if not columns[0][index].strip():
            return None
        group = group_of(records, index, data.fields.group)
        return ClassSample(tuple(encoded["input_ids"][index]), tuple(types[index]), label, group)

    def cut(index: int, sample: ClassSample) -> ClassSample:
        texts = [field_text(records, index, name) for name in names]
        short = tokenizer(*texts, truncation=True, max_length=task.max_length)
        type_ids = tuple(short.get("token_type_ids", ()))
        return ClassSample(tuple(short["input_ids"]), type_ids, sample.label, sample.group)

    return fit_samples([build(index) for index in range(len(records))], cut, records, task)
