from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from fedft.config.schema import DataSection, TaskSection, TrainingSection
from fedft.data.records import Records
from fedft.data.samples import CausalSample
from fedft.errors import FedftError
from fedft.training.causal_lm import CausalLM
from fedft.training.loop import TrainReport, _batches, train_local
from fedft.training.seeds import generator

WORDS = ("sun", "moon", "the stars", "a", "dust", "far away", "near")
RECORDS = Records(tuple({"prompt": w, "completion": w[::-1]} for w in WORDS), ("here",) * len(WORDS))


@pytest.fixture
def task(tokenizer: Any) -> CausalLM:
    return CausalLM(TaskSection(), DataSection(), tokenizer)


@pytest.fixture
def samples(task: CausalLM) -> list[CausalSample]:
    return task.prepare(RECORDS)[0]


def matrices(model: nn.Module) -> list[nn.Parameter]:
    model.requires_grad_(False)
    chosen = [p for name, p in model.named_parameters() if "q_proj" in name or "down_proj" in name]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def train(
    model: nn.Module, task: CausalLM, samples: list[CausalSample], seed: int = 1, **values: Any
) -> tuple[TrainReport, list[torch.Tensor]]:
    model = copy.deepcopy(model)
    parameters = matrices(model)
    section = TrainingSection(**{"learning_rate": 1e-3, "batch_size": 3, **values})
    report = train_local(model, task, samples, section, adapters=parameters, generator=generator(seed))
    return report, [parameter.detach() for parameter in parameters]


def test_it_is_adamw_on_the_mean_loss(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    """One epoch against AdamW's published update (Loshchilov and Hutter, 2019), written out in float64."""
    rate, decay, beta1, beta2, eps = 1e-2, 0.1, 0.8, 0.9, 1e-8
    _, found = train(
        llama.double(),
        task,
        samples,
        learning_rate=rate,
        weight_decay=decay,
        beta1=beta1,
        beta2=beta2,
        max_grad_norm=0,
    )
    model = copy.deepcopy(llama)
    parameters = matrices(model)
    m = [torch.zeros_like(p) for p in parameters]
    v = [torch.zeros_like(p) for p in parameters]
    order = torch.randperm(len(samples), generator=generator(1)).tolist()
    for step, chosen in enumerate([order[:3], order[3:6], order[6:]], start=1):
        batch = task.collate([samples[i] for i in chosen])
        gradients = torch.autograd.grad(task.per_sample_loss(model, batch).mean(), parameters)
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
                m[i] = beta1 * m[i] + (1 - beta1) * g
                v[i] = beta2 * v[i] + (1 - beta2) * g * g
                direction = (m[i] / (1 - beta1**step)) / ((v[i] / (1 - beta2**step)).sqrt() + eps)
                p.sub_(rate * (direction + decay * p))
    torch.testing.assert_close(found, [p.detach() for p in parameters], rtol=1e-9, atol=1e-9)


@pytest.fixture
def norms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The gradient's norm at every optimiser step, as it happens."""
    seen: list[float] = []
    step = torch.optim.AdamW.step

    def watch(optimizer: torch.optim.AdamW, *arguments: Any) -> Any:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    return seen


def test_micro_batches_change_nothing(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM, norms: list[float]
) -> None:
    for batch_size in (3, 5, 7):
        norms.clear()
        values = {"batch_size": batch_size, "epochs": 2, "max_grad_norm": 0}
        whole, a = train(llama, task, samples, **values)
        cut, b = train(llama, task, samples, micro_batch_size=2, **values)
        assert (whole.steps, whole.examples) == (cut.steps, cut.examples)
        assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert norms[: whole.steps] == pytest.approx(norms[whole.steps :], rel=1e-3)


def test_the_same_generator_gives_the_same_bits_and_another_does_not(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    results = [train(llama, task, samples, seed=seed, steps=4)[1] for seed in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))


def test_the_global_random_state_is_left_alone(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    train(llama, task, samples)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), repr(np.random.get_state()))


def test_only_the_given_parameters_change_and_the_loss_falls(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    before = {name: p.clone() for name, p in llama.named_parameters()}
    parameters = matrices(llama)
    section = TrainingSection(learning_rate=1e-2, steps=30, batch_size=7)
    report = train_local(llama, task, samples, section, adapters=parameters, generator=generator(1))
    changed = {name for name, p in llama.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if "q_proj" in name or "down_proj" in name}
    assert report.steps == 30
    assert report.examples == 210
    after = task.per_sample_loss(llama, task.collate(samples)).mean().item()
    assert after < 0.5 * report.loss
    assert all(p.grad is None for p in llama.parameters())


def test_the_head_has_its_own_rate(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    first, second = matrices(llama)[:2]
    before = first.clone(), second.clone()
    section = TrainingSection(learning_rate=1e-3, head_learning_rate=1e-2, steps=1, batch_size=7)
    train_local(llama, task, samples, section, adapters=[first], head=[second], generator=generator(1))
    moved = [(now - old).abs().median().item() for now, old in zip((first, second), before, strict=True)]
    assert moved == pytest.approx([1e-3, 1e-2], rel=0.05)  # Adam's first step is the rate, times a sign


def test_the_schedule_spans_the_rounds(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    """The last step of a linear schedule over 10 steps moves by a tenth of the rate."""
    parameters = matrices(llama)
    before = [p.clone() for p in parameters]
    section = TrainingSection(learning_rate=1e-2, steps=1, batch_size=7, schedule="linear")
    arguments: dict[str, Any] = {"adapters": parameters, "generator": generator(1)}
    train_local(llama, task, samples, section, first_step=9, total_steps=10, **arguments)
    moved = torch.cat([(p - old).abs().flatten() for p, old in zip(parameters, before, strict=True)])
    assert moved.median().item() == pytest.approx(1e-3, rel=0.05)


def test_clipping_limits_the_norm(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM, norms: list[float]
) -> None:
    train(llama, task, samples, max_grad_norm=0.25)
    train(llama, task, samples, max_grad_norm=0)
    assert norms[:3] == pytest.approx([0.25] * 3, rel=1e-4)
    assert min(norms[3:]) > 0.25


def test_a_gradient_that_is_not_finite_ends_the_training(
    task: CausalLM, samples: list[CausalSample], llama: LlamaForCausalLM
) -> None:
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("inf"))
    with pytest.raises(FedftError, match="FEDFT-3030"):
        train(llama, task, samples, max_grad_norm=0)


def test_nothing_to_train_is_an_error(task: CausalLM, llama: LlamaForCausalLM) -> None:
    with pytest.raises(FedftError, match="FEDFT-3031"):
        train(llama, task, [])


def test_every_sample_comes_once_an_epoch(samples: list[CausalSample]) -> None:
    section = TrainingSection(epochs=2, batch_size=4)
    batches = list(_batches(samples, section, 4, generator(5)))
    assert [len(batch) for batch in batches] == [4, 4, 4, 2]
    flat = [sample for batch in batches for sample in batch]
    assert sorted(flat[:7], key=repr) == sorted(flat[7:], key=repr) == sorted(samples, key=repr)


def test_with_steps_every_batch_is_full(samples: list[CausalSample]) -> None:
    section = TrainingSection(steps=3, batch_size=20)
    assert [len(batch) for batch in _batches(samples, section, 3, generator(5))] == [20, 20, 20]
