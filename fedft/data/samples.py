"""Samples, and the one place that decides about those that are too long or empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fedft.config.schema import TaskSection
from fedft.data.records import Records, missing_field, where
from fedft.data.report import DataReport
from fedft.errors import Code, FedftError

Tokenizer = Any
"""A transformers tokenizer; what its loaders return has no type."""


@dataclass(frozen=True, slots=True)
class CausalSample:
    """A prompt and its completion.

    Attributes:
        ids: token ids of both.
        loss_from: index of the completion's first token; the loss is on ``ids[loss_from:]``.
        reference: the completion's text, for the exact match.
        group: what the evaluation reports this sample under; empty without groups.

    """

    ids: tuple[int, ...]
    loss_from: int
    reference: str
    group: str


@dataclass(frozen=True, slots=True)
class ClassSample:
    """A text, or a pair of texts, and its class.

    Attributes:
        ids: token ids, special tokens included.
        type_ids: 0 for the first text and 1 for the second; empty if the model takes none.
        label: index of the class.
        group: as in `CausalSample`.

    """

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]
    label: int
    group: str


S = TypeVar("S", CausalSample, ClassSample)
T = TypeVar("T")


def each_record(
    indices: Iterable[int], build: Callable[[int], T], *, skip_unreadable: bool
) -> list[T | None]:
    """Build something of every record; None of one that fails, if unreadable records are to be skipped."""
    return [_built(build, index) if skip_unreadable else build(index) for index in indices]


def _built(build: Callable[[int], T], index: int) -> T | None:
    try:
        return build(index)
    except Exception:  # whatever a record does to a template, a tokenizer or a label: it gives no sample
        return None


def fit_samples(
    built: Sequence[S | None],
    cut: Callable[[int, S], S | None],
    records: Records,
    task: TaskSection,
    *,
    skip_unreadable: bool = False,
) -> tuple[list[S], DataReport]:
    """Keep, cut, drop or refuse, as ``task.too_long`` says, and count each.

    Args:
        built: for every record its sample at full length, or None if it is empty.
        cut: shortens the sample of the record with this index to ``task.max_length`` tokens; None if
            nothing is left to learn.
        records: where the samples come from, for the messages.
        task: the limit and what happens beyond it.
        skip_unreadable: drop what would be an error, and allow that no sample is left.

    Raises:
        FedftError: FEDFT-3024 a sample is too long and ``too_long`` is "error", FEDFT-3025 no sample
            is left.

    """
    samples: list[S] = []
    truncated = dropped = empty = longest = 0
    for index, sample in enumerate(built):
        longest = max(longest, len(sample.ids) if sample else 0)
        if sample and len(sample.ids) > task.max_length:
            if task.too_long == "error" and not skip_unreadable:
                raise _too_long(records, index, len(sample.ids), task.max_length)
            if task.too_long != "truncate":
                dropped += 1
                continue
            sample = cut(index, sample)
            truncated += sample is not None
        if sample is None:
            empty += 1
        else:
            samples.append(sample)
    tokens = sum(len(sample.ids) for sample in samples)
    report = DataReport(len(built), len(samples), truncated, dropped, empty, tokens, longest)
    if not samples and not skip_unreadable:
        raise FedftError(
            Code.NO_USABLE_SAMPLES, f"no sample is left to use: {report}", hint="raise task.max_length?"
        )
    return samples, report


Texts = TypeVar("Texts", bound=tuple[str, ...])


def encodable(texts: Texts) -> Texts:
    """Return texts that a tokenizer takes; a lone surrogate is a UnicodeEncodeError here, not in a batch."""
    for text in texts:
        text.encode()
    return texts


def field_text(records: Records, index: int, field: str) -> str:
    """A field's value as text; FEDFT-3005 if the record lacks it."""
    value = records[index].get(field)
    if value is None:
        raise missing_field(records, index, field)
    return str(value)


def group_of(records: Records, index: int, field: str) -> str:
    """The group that a record is evaluated under; "" without a group field."""
    return field_text(records, index, field) if field else ""


def _too_long(records: Records, index: int, length: int, limit: int) -> FedftError:
    return FedftError(
        Code.SAMPLE_TOO_LONG,
        f"{where(records, index)} has {length} tokens, the limit is {limit}",
        hint='raise task.max_length, or set task.too_long to "truncate" or "drop"',
    )
