"""LoRA layers against PEFT's, FedIT against central LoRA, and FFA-LoRA's per-sample gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from fedft.adapters import AdapterHandle, attach, resolve_targets
from fedft.adapters.lora_frame import LoraFrame, build_lora_frames, kaiming_uniform
from fedft.adapters.lora_linear import LoraLinear
from fedft.errors import FedftError
from fedft.privacy.mechanisms.per_sample import PerSampleGradients
from fedft.training import seeds
from fedft.training.model_runtime import ModelRuntime
from fedft.training.task import to_device
from tests.adapters.models import per_sample_loss as token_loss
from tests.adapters.models import tiny_bert, tiny_gpt2, tiny_llama, tokens
from tests.federation import run_inline, tiny_config
from tests.privacy.models import make_batch, one_at_a_time, per_sample_loss

RANK, SCALE = 4, 2.0


def adapted(model: nn.Module, *, train_a: bool = True, head: tuple[str, ...] = ()) -> AdapterHandle:
    targets = resolve_targets(model, "auto")
    frames = build_lora_frames(model, targets, rank=RANK, scale=SCALE, seed=3, train_a=train_a)
    return attach(model, frames, extra_trainable=head)


def peft_twin(model: nn.Module, handle: AdapterHandle) -> nn.Module:
    """PEFT's LoRA on the same base with the same factors."""
    config = LoraConfig(r=RANK, lora_alpha=RANK * SCALE, target_modules=list(handle.frames))
    twin: nn.Module = get_peft_model(model, config)
    for name, layer in handle.layers.items():
        theirs: Any = twin.get_submodule(f"base_model.model.{name}")
        theirs.lora_A["default"].weight.data.copy_(layer.A)
        theirs.lora_B["default"].weight.data.copy_(layer.B)
    return twin


def peft_factors(twin: nn.Module, name: str) -> dict[str, nn.Parameter]:
    layer: Any = twin.get_submodule(f"base_model.model.{name}")
    return {"lora_A": layer.lora_A["default"].weight, "lora_B": layer.lora_B["default"].weight}


def shake(handle: AdapterHandle) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in handle.trainable_parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert])
def test_outputs_and_gradients_are_pefts(make: Any) -> None:
    handle = adapted(make())
    shake(handle)
    twin = peft_twin(make(), handle)
    ours, theirs = (token_loss(model, tokens()) for model in (handle.model, twin))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    ours.mean().backward()
    theirs.mean().backward()
    for name, layer in handle.layers.items():
        for part, parameter in layer.trainable().items():
            expected = peft_factors(twin, name)[part].grad
            assert parameter.grad is not None
            assert expected is not None
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-7)


def test_gradients_are_those_of_finite_differences() -> None:
    base = nn.Linear(5, 6).double().requires_grad_(False)
    layer = LoraLinear(base, torch.randn(2, 5), scale=0.7, train_a=True).double()
    layer.B.data.normal_()
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)

    def forward(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y: Tensor = layer(x)
        return y

    assert torch.autograd.gradcheck(forward, (x, layer.A, layer.B))


@pytest.mark.parametrize("head_trained", [True, False])
def test_per_sample_gradients_of_a_frozen_a_are_those_of_single_samples(head_trained: bool) -> None:
    handle = adapted(tiny_bert(), train_a=False, head=("classifier",) if head_trained else ())
    shake(handle)
    batch = make_batch("bert")
    collector = PerSampleGradients(handle.model)
    collector.attach()
    ours = collector.backward(per_sample_loss(handle.model, batch))
    collector.detach()
    theirs = one_at_a_time(handle.model, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_per_sample_gradients_of_two_factors_are_refused() -> None:
    with pytest.raises(FedftError, match=r"FEDFT-8401 no per-sample gradients for .*\.A"):
        PerSampleGradients(adapted(tiny_bert()).model)


def test_a_is_the_same_on_every_machine_and_as_wide_as_pefts() -> None:
    a = kaiming_uniform(16, 400, "a key")
    assert torch.equal(a, kaiming_uniform(16, 400, "a key"))
    assert a[0, :3].tolist() == [0.04044776409864426, -0.00962437130510807, -0.01980086788535118]
    assert a.abs().max() <= 1 / 20
    assert float(a.double().var()) == pytest.approx(1 / (3 * 400), rel=0.05)
    assert not torch.equal(a, kaiming_uniform(16, 400, "another key"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"a": torch.zeros(2, 3, dtype=torch.float64)}, "2101"),
        ({"a": torch.full((2, 3), float("nan"))}, "2101"),
        ({"scale": 0.0}, "2101"),
        ({"scale": float("inf")}, "2101"),
        ({"out_features": 1}, "2104"),
        ({"out_features": -5}, "2104"),
    ],
)
def test_frames_that_make_no_sense_are_refused(changes: dict[str, Any], code: str) -> None:
    good: dict[str, Any] = {"a": torch.zeros(2, 3), "out_features": 4, "scale": 1.0, "train_a": True}
    LoraFrame(**good)
    with pytest.raises(FedftError, match=f"FEDFT-{code}"):
        LoraFrame(**good | changes)


@pytest.mark.parametrize("steps", [1, 3])
def test_fedit_with_one_client_is_central_lora(steps: int, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        **{
            "method": "fedit",
            "adapter.scale": SCALE,
            "data.partition.clients": 1,
            "rounds.total": 1,
            "training.steps": steps,
            "training.batch_size": 90 // steps,
            "codec.name": "dense",
            "evaluation.every": 0,
        },
    )
    store, run = run_inline(config)
    found = store.state(run.id, 1)

    runtime = ModelRuntime(config)
    runtime.attach(runtime.build_frames())
    handle, base = runtime.adapters, ModelRuntime(config).base.model
    twin = peft_twin(base, handle).eval()
    parameters = {
        f"{name}.{part}": parameter
        for name in handle.frames
        for part, parameter in peft_factors(twin, name).items()
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.training.learning_rate, weight_decay=0.0)
    samples = runtime.data.of(0).train
    generator = seeds.generator(config.seed, "round", 1, "client-000")
    order = torch.randperm(len(samples), generator=generator).tolist()
    size = config.training.batch_size
    for step in range(steps):
        batch = [samples[index] for index in order[step * size : (step + 1) * size]]
        inputs = to_device(runtime.task.collate(batch), torch.device("cpu"))
        optimizer.zero_grad()
        runtime.task.per_sample_loss(twin, inputs).mean().backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), config.training.max_grad_norm)
        optimizer.step()

    assert set(found) == set(parameters)
    start = handle.state()
    for name, parameter in parameters.items():
        moved = parameter.detach() - start[name]
        np.testing.assert_allclose(
            found[name] - start[name].numpy(), moved.numpy(), rtol=2e-3, atol=2e-3 * 0.01, err_msg=name
        )
