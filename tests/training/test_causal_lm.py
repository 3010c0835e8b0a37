from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from fedft.config.schema import DataSection, TaskSection
from fedft.data.records import Records
from fedft.data.samples import CausalSample
from fedft.training.causal_lm import CausalLM
from fedft.training.generate import greedy
from fedft.training.metrics import Metrics

WORDS = ("a", "bird in the hand", "xyz 12", "Q", "longer than the others, by far")
RECORDS = Records(
    tuple({"prompt": word, "completion": word[::-1], "kind": str(len(word) % 2)} for word in WORDS),
    ("here",) * len(WORDS),
)


@pytest.fixture
def task(tokenizer: Any) -> CausalLM:
    data = DataSection.model_validate({"fields": {"group": "kind"}})
    return CausalLM(TaskSection(max_new_tokens=6), data, tokenizer)


@pytest.fixture
def samples(task: CausalLM) -> list[CausalSample]:
    return task.prepare(RECORDS)[0]


def test_each_samples_loss_is_the_librarys_own(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    losses = task.per_sample_loss(llama, task.collate(samples))
    assert losses.dtype == torch.float32
    for sample, loss in zip(samples, losses, strict=True):
        ids = torch.tensor([sample.ids])
        labels = ids.clone()
        labels[0, : sample.loss_from] = -100
        expected = llama(input_ids=ids, labels=labels).loss
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_losses_do_not_depend_on_the_other_samples_of_the_batch(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    together = task.per_sample_loss(llama, task.collate(samples))
    alone = torch.cat([task.per_sample_loss(llama, task.collate([sample])) for sample in samples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_a_model_that_cannot_limit_its_logits_gives_the_same_loss(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = llama

        def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    batch = task.collate(samples)
    expected = task.per_sample_loss(llama, batch)
    torch.testing.assert_close(task.per_sample_loss(Whole(), batch), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_greedy_decoding_is_the_librarys(
    samples: list[CausalSample], kind: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    prompts = [sample.ids[: sample.loss_from] for sample in samples]
    free = greedy(model, prompts, 12, [])
    stops = [free[0][3], free[2][5]]
    settings = GenerationConfig(
        max_new_tokens=12, do_sample=False, num_beams=1, eos_token_id=stops, pad_token_id=0, bos_token_id=1
    )
    expected = []
    for prompt in prompts:
        row = model.generate(torch.tensor([prompt]), generation_config=settings)[0, len(prompt) :].tolist()
        expected.append([token for token in row if token not in stops])
    found = greedy(model, prompts, 12, stops)
    assert found == expected
    assert 12 > len(found[0]) != len(free[0])


def test_evaluation_sums_losses_and_counts_answers(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {sample.ids[: sample.loss_from]: sample.ids[sample.loss_from : -1] for sample in samples}
    wrong = samples[1].ids[: samples[1].loss_from]

    def knows_all_but_one(model: Any, prompts: Any, *_: Any) -> list[list[int]]:
        return [[5] if prompt == wrong else list(answers[prompt]) for prompt in prompts]

    monkeypatch.setattr("fedft.training.causal_lm.greedy", knows_all_but_one)
    llama.train()
    metrics = task.evaluate(llama, samples, batch_size=2, generate=True)
    assert llama.training
    assert metrics.samples == 5
    losses = task.per_sample_loss(llama.eval(), task.collate(samples)).detach()
    values = metrics.values()
    assert values["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert values["exact_match"] == pytest.approx(4 / 5)
    weights = torch.tensor([len(sample.ids) - sample.loss_from for sample in samples])
    per_token = float((losses * weights).sum() / weights.sum())
    assert values["perplexity"] == pytest.approx(torch.tensor(per_token).exp().item(), rel=1e-5)
    assert metrics.group_values()["0"]["exact_match"] == pytest.approx(2 / 3)
    assert metrics.group_values()["1"]["exact_match"] == 1.0


def test_evaluation_in_parts_adds_up(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    whole = task.evaluate(llama, samples, batch_size=5)
    parts = task.evaluate(llama, samples[:2], batch_size=5) + task.evaluate(llama, samples[2:], batch_size=1)
    assert parts.values() == pytest.approx(whole.values(), rel=1e-5)
    assert parts.group_values().keys() == whole.group_values().keys()
    assert Metrics.from_json(parts.to_json()) == parts


@pytest.mark.parametrize(
    ("answer", "reference", "marker", "same"),
    [
        (" 42", "42 ", "", True),
        ("so it is #### 42", "thus\n#### 42", "####", True),
        ("#### 41 #### 42", "#### 42", "####", True),
        ("42", "#### 42", "####", False),
        ("#### 420", "#### 42", "####", False),
    ],
)
def test_exact_match(tokenizer: Any, answer: str, reference: str, marker: str, same: bool) -> None:
    task = CausalLM(TaskSection(answer_after=marker), DataSection(), tokenizer)
    assert task.matches(answer, reference) is same
