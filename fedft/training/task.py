"""What a task is: how records become samples, what their loss is, and how a model is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fedft.config.schema import RunConfig
from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.data.samples import CausalSample, ClassSample, Tokenizer
from fedft.training.metrics import Metrics

Batch = dict[str, Tensor]
S = TypeVar("S", CausalSample, ClassSample)

IGNORED = -100
"""The label of a position without loss."""


class Task(Protocol[S]):
    """One kind of learning problem, without a model and without data of its own."""

    def prepare(self, records: Records) -> tuple[list[S], DataReport]:
        """Samples of the records, and an account of those that were cut or left out."""
        ...

    def collate(self, samples: Sequence[S]) -> Batch:
        """A right-padded batch, on the CPU: int64 tensors of shape (batch, length), labels among them."""
        ...

    def per_sample_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of each sample in nats, float32 of shape (batch,); the batch is on the model's device."""
        ...

    def evaluate(
        self, model: nn.Module, samples: Sequence[S], *, batch_size: int, generate: bool = False
    ) -> Metrics:
        """Measure a model, without gradients and in evaluation mode; ``generate`` adds the exact match."""
        ...


def make_task(config: RunConfig, tokenizer: Tokenizer) -> Task[Any]:
    """The task that a run's configuration names."""
    from fedft.training.causal_lm import CausalLM
    from fedft.training.sequence_classification import SequenceClassification

    if config.task.kind == "causal-lm":
        return CausalLM(config.task, config.data, tokenizer)
    return SequenceClassification(config.task, config.data, tokenizer)


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
