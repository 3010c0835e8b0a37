from __future__ import annotations

import random
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedft.adapters import SampleGradients, resolve_targets
from fedft.errors import FedftError
from tests.adapters.models import Make, per_sample_loss, tiny_bert, tiny_gpt2, tiny_llama, tokens
from tests.gradients import grad

BATCHES = [tokens(3), tokens(3, seed=1), tokens(1, seed=2)]  # the last one is short


def autograd_oracle(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """The same with every weight trainable and the plain mean over all samples."""
    model.eval().requires_grad_(True)
    losses = torch.cat([per_sample_loss(model, batch) for batch in BATCHES])
    losses.mean().backward()
    found = {}
    for name in names:
        gradient = grad(model.get_parameter(f"{name}.weight"))
        found[name] = gradient.T if type(model.get_submodule(name)).__name__ == "Conv1D" else gradient
    return found


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert])
@pytest.mark.parametrize("layers_at_once", [1, 3, 100])
def test_gradients_equal_autograd_over_the_mean_of_all_samples(make: Make, layers_at_once: int) -> None:
    model = make()
    targets = resolve_targets(model, "auto")
    found = dict(SampleGradients(BATCHES, per_sample_loss, layers_at_once)(model, targets))
    expected = autograd_oracle(model, targets)
    assert list(found) == targets
    for name in targets:
        error = (found[name] - expected[name]).norm() / expected[name].norm()
        assert error < 2e-6, name


def test_a_bfloat16_model_sums_in_float32() -> None:
    model = tiny_llama().bfloat16()
    name = "model.layers.1.mlp.up_proj"
    many = [tokens(1, seed=seed) for seed in range(40)]
    ((_, found),) = SampleGradients(many, per_sample_loss)(model, [name])
    one = [dict(SampleGradients([batch], per_sample_loss)(model, [name]))[name] for batch in many]
    expected = torch.stack(one).double().mean(0)
    assert found.dtype == torch.float32
    assert (found.double() - expected).norm() < 1e-6 * expected.norm()


def test_one_full_gradient_is_alive_at_a_time() -> None:
    model = tiny_llama()
    targets = resolve_targets(model, ["gate_proj", "up_proj", "q_proj"])
    alive: list[weakref.ref[Tensor]] = []
    for _, gradient in SampleGradients(BATCHES, per_sample_loss)(model, targets):
        alive.append(weakref.ref(gradient))
        del gradient
        assert sum(each() is not None for each in alive) == 0


@pytest.mark.parametrize(("layers_at_once", "passes"), [(1, 6), (2, 3), (4, 2), (6, 1)])
def test_each_group_of_layers_takes_one_pass(layers_at_once: int, passes: int) -> None:
    model, calls = tiny_llama(), []
    targets = resolve_targets(model, ["gate_proj", "up_proj", "q_proj"])

    def counted(model: nn.Module, batch: Tensor) -> Tensor:
        calls.append(len(batch))
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(module.training for module in model.modules())
        return per_sample_loss(model, batch)

    dict(SampleGradients(BATCHES, counted, layers_at_once)(model, targets))
    assert calls == [3, 3, 1] * passes


def test_flags_weights_hooks_and_generators_are_as_before() -> None:
    model = tiny_bert().train()
    model.bert.encoder.layer[0].eval()
    model.bert.embeddings.requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    training = [module.training for module in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    states = (
        torch.get_rng_state(),
        np.random.get_state(legacy=False)["state"]["key"].copy(),
        random.getstate(),
    )
    targets = resolve_targets(model, "auto")
    dict(SampleGradients(BATCHES, per_sample_loss, 5)(model, targets))
    assert [module.training for module in model.modules()] == training
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], states[1])
    assert random.getstate() == states[2]
    assert not any(module._forward_hooks for module in model.modules())
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["classifier.weight"]


def test_a_failing_loss_leaves_the_model_as_it_was() -> None:
    model = tiny_llama().train()

    def failing(model: nn.Module, batch: Tensor) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        dict(SampleGradients(BATCHES, failing)(model, ["model.layers.0.mlp.up_proj"]))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_it_works_where_gradients_are_switched_off() -> None:
    model, name = tiny_llama(), "model.layers.0.mlp.up_proj"
    with torch.no_grad():
        ((_, gradient),) = SampleGradients(BATCHES, per_sample_loss)(model, [name])
    assert gradient.any()


def test_a_module_used_twice_collects_both_uses() -> None:
    layer = nn.Linear(4, 4)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model = nn.ModuleDict({"w": layer})

    def twice(model: nn.Module, batch: Tensor) -> Tensor:
        w = model.get_submodule("w")
        y: Tensor = w(w(batch).tanh())
        return y.square().sum(1)

    ((_, found),) = SampleGradients([x], twice)(model, ["w"])
    twice(model, x).mean().backward()
    torch.testing.assert_close(found, layer.weight.grad)


def test_a_target_that_the_loss_does_not_use_has_a_zero_gradient() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "idle": nn.Linear(4, 4)})
    gradients = SampleGradients([torch.ones(2, 4)], lambda model, x: model.get_submodule("used")(x).sum(1))
    found = dict(gradients(model, ["idle"])) | dict(gradients(model, ["idle", "used"]))
    assert not found["idle"].any()
    assert found["idle"].shape == (4, 4)


@pytest.mark.parametrize(
    "gradients",
    [
        SampleGradients([], per_sample_loss),
        SampleGradients(iter(BATCHES), per_sample_loss),
        SampleGradients(BATCHES, per_sample_loss, layers_at_once=0),
        SampleGradients(BATCHES, lambda model, batch: per_sample_loss(model, batch).mean()),
        SampleGradients(BATCHES, lambda model, batch: per_sample_loss(model, batch)[:0]),
    ],
)
def test_unusable_samples_are_refused(gradients: SampleGradients) -> None:
    with pytest.raises(FedftError, match="FEDFT-2108"):
        dict(gradients(tiny_llama(), ["model.layers.0.mlp.up_proj"]))
