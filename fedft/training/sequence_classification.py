"""Sequence classification: one class for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fedft.config import RunConfig
from fedft.config.rules import Contradiction
from fedft.config.schema import TaskSection
from fedft.data.classes import class_samples
from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.data.samples import ClassSample
from fedft.training.evaluate import evaluating
from fedft.training.metrics import Mean, Metrics, tally
from fedft.training.task import (
    SYNTHETIC_LENGTHS,
    Batch,
    Task,
    batches_by_length,
    device_of,
    pad,
    synthetic_ids,
    to_device,
)


class SequenceClassification(Task[ClassSample]):
    """Name a text's class: the `Task` of encoders with a classification head."""

    peft_type = "SEQ_CLS"
    has_head = True
    classifies_texts = True

    @classmethod
    def auto_class(cls) -> Any:
        """Return the class of models with a classification head."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    @classmethod
    def model_changes(cls, task: TaskSection) -> dict[str, Any]:
        """Return the classes' number and names."""
        names = dict(enumerate(task.labels))
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: index for index, name in names.items()},
        }

    @classmethod
    def contradictions(cls, config: RunConfig) -> Iterator[Contradiction]:
        """Yield classes that are no choice, and fields that are not named."""
        for role in ("text", "label"):
            if not getattr(config.data.fields, role):
                yield Contradiction(
                    f"data.fields.{role}", "classification reads a text and its label", ("task.kind",)
                )
        if len(config.task.labels) < 2:
            yield Contradiction(
                "task.labels",
                f"classification needs at least two class names, got {list(config.task.labels)}",
                ("task.kind",),
            )

    def synthetic_samples(
        self, model: nn.Module, lengths: Sequence[int] = SYNTHETIC_LENGTHS
    ) -> list[ClassSample]:
        """Return samples of every class in turn."""
        typed = "token_type_ids" in self._tokenizer.model_input_names
        return [
            ClassSample(ids, (0,) * len(ids) if typed else (), index % len(self._task.labels), "")
            for index, ids in enumerate(synthetic_ids(model, lengths))
        ]

    def prepare(
        self, records: Records, *, skip_unreadable: bool = False
    ) -> tuple[list[ClassSample], DataReport]:
        """See `fedft.data.classes.class_samples`."""
        return class_samples(
            records, self._data, self._task, self._tokenizer, skip_unreadable=skip_unreadable
        )

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
