"""The memory plan against what a real step on a small model holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, GPT2Config
from transformers import LlamaConfig as Llama

from fedft.adapters import SampleGradients, attach, resolve_targets
from fedft.config.load import check
from fedft.errors import FedftError
from fedft.methods.fedsb import FEDSB
from fedft.quant import INT8, NF4, NF4Weight, QuantFormat, quantise_model
from fedft.quant.codebook import levels, nested_map
from fedft.registries import METHODS
from fedft.training import memory_plan
from fedft.training.memory_plan import MemoryPlan, plan_memory
from tests.gradients import grad

LLAMA = Llama(
    hidden_size=128, intermediate_size=320, num_hidden_layers=2, num_attention_heads=4, vocab_size=160
)


def llama() -> Any:
    return AutoModelForCausalLM.from_config(LLAMA, dtype=torch.bfloat16)


def gpt2() -> Any:
    config = GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=100)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def bert() -> Any:
    config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)


def targets(model: nn.Module) -> list[str]:
    return resolve_targets(model, "auto")


def no_gradients() -> SampleGradients:
    raise AssertionError("this frame needs none")


def planned(make: Any = llama, **changes: Any) -> MemoryPlan:
    given: dict[str, Any] = {"layer": FEDSB.planned_layer, "rank": 8, "batch": 2, "tokens": 32, "format": NF4}
    return plan_memory(make, targets, **given | changes)


@pytest.mark.parametrize("method", ["fedsb", "fedit", "ffa-lora"])
@pytest.mark.parametrize("format", [NF4, INT8, None], ids=["nf4", "int8", "dense"])
@pytest.mark.parametrize("make", [llama, gpt2, bert])
def test_equals_a_real_step(make: Any, format: QuantFormat | None, method: str) -> None:
    chosen = METHODS.get(method)
    plan = planned(make, format=format, layer=chosen.planned_layer)
    model = make().train()
    if format is not None:
        quantise_model(model, format)
    weights = memory_plan._stored(model)
    config = check({"method": method, "adapter": {"rank": 8, "initialiser": "random"}})
    handle = attach(model, chosen.build_frames(model, targets(model), config, no_gradients))
    handle.load({name: value + 0.01 for name, value in handle.state().items()})
    ids = torch.zeros(2, 32, dtype=torch.int64)
    with memory_plan._Counter() as counter:
        memory_plan._loss(model(input_ids=ids).logits).backward()
    gradients = sum(grad(p).nbytes for p in handle.trainable_parameters())
    assert plan.weights == weights
    layers = handle.layers.values()
    assert plan.frames == sum(b.nbytes for layer in layers for b in layer.buffers(recurse=False))
    assert plan.trainable == 4 * gradients
    # The dense matrix that a real NF4 layer needs comes from the workspace, which the plan names by itself.
    assert plan.activations == pytest.approx(counter.peak - gradients, rel=0.05)


def test_what_changes_the_plan() -> None:
    usual = planned()
    assert planned(format=None).weights > 2 * usual.weights
    assert planned(format=None).workspace == 0
    assert usual.workspace == 320 * 128 * 2
    assert planned(batch=4).activations > 1.8 * usual.activations
    assert planned(tokens=64).activations > 1.8 * usual.activations
    assert planned(checkpointing=True).activations < 0.8 * usual.activations
    assert planned(rank=16).trainable == 4 * usual.trainable
    matrices = usual.trainable // (4 * 4 * 64)
    assert planned(private=True).trainable - usual.trainable == 2 * matrices * 64 * 4
    assert usual.peak == usual.weights + usual.frames + usual.trainable + usual.workspace + usual.activations


def test_a_large_model_is_planned_without_its_memory() -> None:
    config = Llama(hidden_size=4096, intermediate_size=11008, num_hidden_layers=4, vocab_size=32000)
    plan = plan_memory(
        lambda: AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16),
        targets,
        layer=FEDSB.planned_layer,
        rank=64,
        batch=1,
        tokens=2048,
        format=NF4,
    )
    body = 4 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert plan.weights == pytest.approx(2 * 2 * 32000 * 4096 + body * 4.127 / 8, rel=1e-3)


def test_planning_leaves_no_fake_tables_behind() -> None:
    levels.cache_clear()
    nested_map.cache_clear()
    planned()
    digest = NF4Weight.quantise(torch.ones(2, 64)).digest()
    assert type(levels(torch.device("cpu"))) is torch.Tensor
    assert NF4Weight.quantise(torch.ones(2, 64)).digest() == digest


def test_nonsense_is_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-9015"):
        planned(rank=0)
    with pytest.raises(FedftError, match="FEDFT-9015"):
        plan_memory(
            lambda: nn.Linear(3, 3),
            lambda _: [],
            layer=FEDSB.planned_layer,
            rank=1,
            batch=1,
            tokens=1,
            format=None,
        )
