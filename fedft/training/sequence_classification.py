"""Sequence classification: one class for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from fedft.config.schema import DataSection, TaskSection
from fedft.data.classes import class_samples
from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.data.samples import ClassSample, Tokenizer
from fedft.training.evaluate import evaluating
from fedft.training.metrics import Mean, Metrics, tally
from fedft.training.task import Batch, batches_by_length, device_of, pad, to_device


class SequenceClassification:
    """Name a text's class: the `Task` of encoders with a classification head."""

    def __init__(self, task: TaskSection, data: DataSection, tokenizer: Tokenizer) -> None:
        self._task, self._data, self._tokenizer = task, data, tokenizer

    def prepare(self, records: Records) -> tuple[list[ClassSample], DataReport]:
        """See `fedft.data.classes.class_samples`."""
        return class_samples(records, self._data, self._task, self._tokenizer)

    def collate(self, samples: Sequence[ClassSample]) -> Batch:
        """``input_ids``, ``attention_mask``, ``labels`` of shape (batch,), and ``token_type_ids`` if used."""
        batch = {
            "input_ids": pad([sample.ids for sample in samples], self._tokenizer.pad_token_id),
            "attention_mask": pad([[1] * len(sample.ids) for sample in samples], 0),
            "labels": pad([[sample.label] for sample in samples], 0)[:, 0],
        }
        if samples[0].type_ids:
            batch["token_type_ids"] = pad([sample.type_ids for sample in samples], 0)
        return batch

    def per_sample_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy of each sample's class."""
        return F.cross_entropy(class_logits(model, batch), batch["labels"], reduction="none")

    def evaluate(
        self, model: nn.Module, samples: Sequence[ClassSample], *, batch_size: int, generate: bool = False
    ) -> Metrics:
        """Loss and accuracy; there is nothing to generate."""
        with evaluating(model):
            return tally(self._measure(model, samples, batch_size))

    def _measure(
        self, model: nn.Module, samples: Sequence[ClassSample], batch_size: int
    ) -> Iterator[tuple[str, dict[str, Mean]]]:
        device = device_of(model)
        for chunk in batches_by_length(samples, batch_size):
            batch = to_device(self.collate(chunk), device)
            logits = class_logits(model, batch)
            losses = F.cross_entropy(logits, batch["labels"], reduction="none").tolist()
            right = (logits.argmax(-1) == batch["labels"]).tolist()
            for sample, loss, correct in zip(chunk, losses, right, strict=True):
                yield sample.group, {"loss": Mean(loss, 1), "accuracy": Mean(float(correct), 1)}


def class_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Float32 logits of shape (batch, classes)."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits
    return logits.float()
