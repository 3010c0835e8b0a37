from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from fedft.config.schema import DataSection, TaskSection
from fedft.data.records import Records
from fedft.training.sequence_classification import SequenceClassification

TEXTS = ("one", "two words", "and three words", "x", "yy", "zzz")
RECORDS = Records(tuple({"text": text, "label": len(text) % 3} for text in TEXTS), ("here",) * len(TEXTS))


@pytest.fixture
def task(tokenizer: Any) -> SequenceClassification:
    section = TaskSection(kind="sequence-classification", labels=("a", "b", "c"))
    return SequenceClassification(section, DataSection(), tokenizer)


def test_losses_are_the_librarys(task: SequenceClassification, bert: BertForSequenceClassification) -> None:
    samples, _ = task.prepare(RECORDS)
    losses = task.per_sample_loss(bert, task.collate(samples))
    assert losses.shape == (6,)
    for sample, loss in zip(samples, losses, strict=True):
        expected = bert(input_ids=torch.tensor([sample.ids]), labels=torch.tensor([sample.label])).loss
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_token_types_reach_the_model(
    task: SequenceClassification, bert: BertForSequenceClassification, tokenizer: Any
) -> None:
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    data = DataSection.model_validate({"fields": {"text_pair": "label"}})
    section = TaskSection(kind="sequence-classification", labels=("a", "b", "c"))
    pairs = SequenceClassification(section, data, tokenizer)
    batch = pairs.collate(pairs.prepare(RECORDS)[0])
    assert batch["token_type_ids"].shape == batch["input_ids"].shape
    torch.testing.assert_close(
        pairs.per_sample_loss(bert, batch),
        torch.nn.functional.cross_entropy(
            bert(**{key: value for key, value in batch.items() if key != "labels"}).logits,
            batch["labels"],
            reduction="none",
        ),
    )


def test_accuracy(task: SequenceClassification, bert: BertForSequenceClassification) -> None:
    samples, _ = task.prepare(RECORDS)
    batch = task.collate(samples)
    right = bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
    expected = (right == batch["labels"]).float().mean().item()
    metrics = task.evaluate(bert, samples, batch_size=4)
    assert metrics.values()["accuracy"] == pytest.approx(expected)
    assert metrics.groups == {}
