"""Causal language modelling with the loss on the completion."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedft.config import RunConfig
from fedft.config.rules import Contradiction
from fedft.config.schema import DataSection, TaskSection
from fedft.data.causal import causal_samples, check_reading
from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.data.samples import CausalSample, Tokenizer
from fedft.training.evaluate import evaluating
from fedft.training.generate import greedy
from fedft.training.metrics import Mean, Metrics, tally
from fedft.training.task import (
    IGNORED,
    SYNTHETIC_LENGTHS,
    Batch,
    Task,
    batches_by_length,
    device_of,
    pad,
    synthetic_ids,
    to_device,
)


class CausalLM(Task[CausalSample]):
    """Predict a completion's tokens from the prompt: the `Task` of language models.

    Raises:
        FedftError: FEDFT-3020 and 3022 where no record could be read, before a site reads one.

    """

    peft_type = "CAUSAL_LM"
    has_head = False
    generates = True

    def __init__(self, task: TaskSection, data: DataSection, tokenizer: Tokenizer) -> None:
        check_reading(data, tokenizer)
        super().__init__(task, data, tokenizer)

    @classmethod
    def auto_class(cls) -> Any:
        """Return the class of language models, whose output layer belongs to the base."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    @classmethod
    def contradictions(cls, config: RunConfig) -> Iterator[Contradiction]:
        """Yield a skew by labels, of which there are none."""
        partition = config.data.partition
        if partition.kind == "dirichlet" and not partition.field:
            yield Contradiction(
                "data.partition.field",
                "a Dirichlet split of causal-lm data needs a field to skew by",
                ("task.kind", "data.partition.kind"),
            )

    def synthetic_samples(
        self, model: nn.Module, lengths: Sequence[int] = SYNTHETIC_LENGTHS
    ) -> list[CausalSample]:
        """Return samples whose second half is the completion."""
        return [CausalSample(ids, len(ids) // 2, "", "") for ids in synthetic_ids(model, lengths)]

    def prepare(
        self, records: Records, *, skip_unreadable: bool = False
    ) -> tuple[list[CausalSample], DataReport]:
        """See `fedft.data.causal.causal_samples`."""
        return causal_samples(
            records, self._data, self._task, self._tokenizer, skip_unreadable=skip_unreadable
        )

    def collate(self, samples: Sequence[CausalSample]) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels``; labels are -100 where there is no loss."""
        labels = [[IGNORED] * sample.loss_from + list(sample.ids[sample.loss_from :]) for sample in samples]
        return {
            "input_ids": pad([sample.ids for sample in samples], 0),
            "attention_mask": pad([[1] * len(sample.ids) for sample in samples], 0),
            "labels": pad(labels, IGNORED),
        }

    def per_sample_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over a sample's loss tokens of their negative log-likelihood.

        A sample weighs the same however long it is, so a batch's loss does not depend on how samples
        are spread over micro-batches or clients.
        """
        totals, counts = token_losses(model, batch)
        return totals / counts

    def evaluate(
        self, model: nn.Module, samples: Sequence[CausalSample], *, batch_size: int, generate: bool = False
    ) -> Metrics:
        """Loss and token loss, and with ``generate`` the share of answers that match exactly."""
        with evaluating(model):
            return tally(self._measure(model, samples, batch_size, generate))

    def _measure(
        self, model: nn.Module, samples: Sequence[CausalSample], batch_size: int, generate: bool
    ) -> Iterator[tuple[str, dict[str, Mean]]]:
        device = device_of(model)
        for chunk in batches_by_length(samples, batch_size):
            totals, counts = token_losses(model, to_device(self.collate(chunk), device))
            answers = self._answers(model, chunk) if generate else [None] * len(chunk)
            rows = zip(chunk, totals.tolist(), counts.tolist(), answers, strict=True)
            for sample, total, count, answer in rows:
                means = {"loss": Mean(total / count, 1), "token_loss": Mean(total, int(count))}
                if answer is not None:
                    means["exact_match"] = Mean(float(self.matches(answer, sample.reference)), 1)
                yield sample.group, means

    def _answers(self, model: nn.Module, samples: Sequence[CausalSample]) -> list[str]:
        prompts = [sample.ids[: sample.loss_from] for sample in samples]
        tokens = greedy(model, prompts, self._task.max_new_tokens, self._stops(model))
        texts: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def _stops(self, model: nn.Module) -> list[int]:
        """The tokenizer's end of sequence, and the ends that the model's files name (chat models)."""
        named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        more = named if isinstance(named, list) else [named]
        return sorted({token for token in (self._tokenizer.eos_token_id, *more) if token is not None})

    def matches(self, answer: str, reference: str) -> bool:
        """Whether an answer equals the reference, blanks at the ends aside, after ``answer_after``."""
        marker = self._task.answer_after
        if marker and marker not in answer:
            return False
        return _final(answer, marker) == _final(reference, marker)


def _final(text: str, marker: str) -> str:
    return (text.rpartition(marker)[2] if marker else text).strip()


def token_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Sum of the loss tokens' negative log-likelihood and their number, float32, each of shape (batch,).

    The token at position t is predicted from position t - 1. Positions before the first loss token of
    the batch get no logits where the architecture allows it.
    """
    labels = batch["labels"]
    first = int((labels != IGNORED).any(0).int().argmax())
    keep = labels.shape[1] - first + 1
    limit = {"logits_to_keep": keep} if _keeps_logits(model) else {}
    output = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, **limit
    )
    logits = output.logits[:, -keep:-1].float()
    wanted = labels[:, first:]
    losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
    counts = (wanted != IGNORED).sum(1).to(torch.float32)
    return losses.view_as(wanted).sum(1), counts


def _keeps_logits(model: nn.Module) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters
