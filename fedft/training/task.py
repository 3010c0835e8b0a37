"""What a task is: how records become samples, what their loss is, and how a model is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fedft.config import RunConfig
from fedft.config.rules import Contradiction
from fedft.config.schema import DataSection, TaskSection
from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.data.samples import Tokenizer
from fedft.options import NoOptions, Options
from fedft.registries import TASKS
from fedft.training.metrics import Metrics

Batch = dict[str, Tensor]
IGNORED = -100
"""The label of a position without loss."""

SYNTHETIC_LENGTHS = (7, 4, 5)


class Sample(Protocol):
    """What every task's samples have; anything else is the task's own business."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids."""

    @property
    def group(self) -> str:
        """What the evaluation reports this sample under; empty without groups."""


S = TypeVar("S", bound=Sample)


class Task(ABC, Generic[S]):
    """One kind of learning problem, without a model and without data of its own.

    The class is what is registered: it says what its models are like, before there is one.

    Args:
        task: the section that names it; ``task.options`` are its own.
        data: which fields of a record hold what.
        tokenizer: of the run's model.

    Attributes:
        peft_type: what PEFT calls it in an exported adapter.
        has_head: whether a new head on the model's body is trained; otherwise the output layer belongs to
            the base.
        classifies_texts: whether a new head names the class of a whole text, and so can read pooled states.
        generates: whether it can generate answers, for the exact match.
        options: the schema of further keys of the configuration's section.

    """

    peft_type: ClassVar[str]
    has_head: ClassVar[bool]
    classifies_texts: ClassVar[bool] = False
    generates: ClassVar[bool] = False
    options: ClassVar[type[Options]] = NoOptions

    def __init__(self, task: TaskSection, data: DataSection, tokenizer: Tokenizer) -> None:
        self._task, self._data, self._tokenizer = task, data, tokenizer

    @classmethod
    @abstractmethod
    def auto_class(cls) -> Any:
        """Return transformers' class that loads its models, such as ``AutoModelForCausalLM``."""

    @classmethod
    def model_changes(cls, task: TaskSection) -> dict[str, Any]:
        """Return entries of a model's configuration that the task replaces, such as ``num_labels``."""
        return {}

    @classmethod
    def contradictions(cls, config: RunConfig) -> Iterator[Contradiction]:
        """Yield what this task cannot be combined with, and what it lacks."""
        yield from ()

    @abstractmethod
    def synthetic_samples(self, model: nn.Module, lengths: Sequence[int] = SYNTHETIC_LENGTHS) -> list[S]:
        """Return samples of random tokens, of these lengths, that tell of no record."""

    @abstractmethod
    def prepare(self, records: Records, *, skip_unreadable: bool = False) -> tuple[list[S], DataReport]:
        """Samples of the records, and an account of those that were cut or left out.

        With ``skip_unreadable`` a record that cannot be read gives no sample, and none is an error: what a
        private client does must not depend on any record.
        """

    @abstractmethod
    def collate(self, samples: Sequence[S]) -> Batch:
        """A right-padded batch, on the CPU: int64 tensors of shape (batch, length), labels among them."""

    @abstractmethod
    def per_sample_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of each sample in nats, float32 of shape (batch,); the batch is on the model's device."""

    @abstractmethod
    def evaluate(
        self, model: nn.Module, samples: Sequence[S], *, batch_size: int, generate: bool = False
    ) -> Metrics:
        """Measure a model, without gradients and in evaluation mode; ``generate`` adds the exact match."""


def make_task(config: RunConfig, tokenizer: Tokenizer) -> Task[Any]:
    """The task that a run's configuration names; FEDFT-1010 when there is none of that name."""
    return TASKS.get(config.task.kind)(config.task, config.data, tokenizer)


def synthetic_ids(model: nn.Module, lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield rows of random token ids of a model, of these lengths."""
    generator = torch.Generator().manual_seed(0)
    words = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    for length in lengths:
        yield tuple(torch.randint(words, (length,), generator=generator).tolist())


def pad(rows: Sequence[Sequence[int]], fill: int, *, left: bool = False) -> Tensor:
    """An int64 matrix of shape (rows, longest row), short rows filled on the right (or left)."""
    length = max(map(len, rows))
    filled = [
        [*[fill] * (length - len(row)), *row] if left else [*row, *[fill] * (length - len(row))]
        for row in rows
    ]
    return torch.tensor(filled, dtype=torch.long)


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters."""
    return next(model.parameters()).device


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on another device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def batches_by_length(samples: Sequence[S], batch_size: int) -> Iterator[list[S]]:
    """Batches of samples of similar length, the longest first, so that little is padded."""
    ordered = sorted(samples, key=lambda sample: -len(sample.ids))
    for start in range(0, len(ordered), batch_size):
        yield ordered[start : start + batch_size]
