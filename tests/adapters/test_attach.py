from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedft.adapters import (
    AdaptedLinear,
    AdapterHandle,
    FrameSet,
    SampleGradients,
    attach,
    build_frames,
    resolve_targets,
)
from fedft.errors import FedftError
from tests.adapters.models import (
    Make,
    per_sample_loss,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_roberta,
    tokens,
)
from tests.adapters.test_frame import make_frame
from tests.gradients import grad

CLASSIFIERS = (tiny_bert, tiny_roberta)


def frames_for(
    model: nn.Module, initialiser: str = "random", rank: int = 4, *, scale: float = 1.0
) -> FrameSet:
    gradients = SampleGradients([tokens(3)], per_sample_loss, layers_at_once=20)
    targets = resolve_targets(model, "auto")
    return build_frames(model, targets, initialiser=initialiser, rank=rank, gradients=gradients, scale=scale)


def attached(make: Make, initialiser: str = "random", extra_trainable: Sequence[str] = ()) -> AdapterHandle:
    model = make()
    return attach(model, frames_for(model, initialiser), extra_trainable=extra_trainable)


def random_state(handle: AdapterHandle, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(v.shape, generator=generator) * 0.3 for k, v in handle.state().items()}


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert, tiny_roberta])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_zero_r_gives_the_models_output_bit_for_bit(make: Make, dtype: torch.dtype) -> None:
    model = make().to(dtype)
    before = model(input_ids=tokens()).logits
    attach(model, frames_for(model))
    after = model(input_ids=tokens()).logits
    assert after.dtype == dtype
    assert torch.equal(after.view(torch.uint8), before.view(torch.uint8))


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert])
def test_only_r_and_the_named_head_are_trainable(make: Make) -> None:
    model = make()
    head = ["classifier.weight", "classifier.bias"] if make in CLASSIFIERS else []
    handle = attach(model, frames_for(model), extra_trainable=head)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{name}.R" for name in handle.frames} | set(head)
    assert handle.names == [*handle.frames, *sorted(head)]
    assert {id(p) for p in handle.trainable_parameters()} == {
        id(p) for p in model.parameters() if p.requires_grad
    }


@pytest.mark.parametrize("initialiser", ["lora-sb", "pissa"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert])
def test_gradient_of_r_is_the_projected_gradient_of_the_full_weight(make: Make, initialiser: str) -> None:
    handle = attached(make, initialiser)
    handle.load(random_state(handle))
    per_sample_loss(handle.model, tokens()).mean().backward()
    found = {name: grad(layer.get_parameter("R")) for name, layer in handle.layers.items()}
    frames, state = handle.frames, handle.state()
    model = handle.detach()
    for name, frame in frames.items():  # the same function with dense weights
        change = frame.delta(state[name] - frame.r0 if frame.residual else state[name]).float()
        module = model.get_submodule(name)
        module.weight.data += change.T if type(module).__name__ == "Conv1D" else change
    gradients = SampleGradients([tokens()], per_sample_loss, layers_at_once=20)
    for name, gradient in gradients(model, list(frames)):
        frame = frames[name]
        expected = frame.scale * frame.b.double().T @ gradient.double() @ frame.a.double().T
        assert (found[name].double() - expected).norm() <= 1e-5 * expected.norm(), name


def test_non_reentrant_checkpointing_of_a_whole_model_gives_the_same_gradients() -> None:
    handle = attached(tiny_llama, "lora-sb")
    per_sample_loss(handle.model, tokens()).sum().backward()
    plain = [grad(p).clone() for p in handle.trainable_parameters()]
    handle.model.zero_grad()
    checkpoint(lambda ids: per_sample_loss(handle.model, ids), tokens(), use_reentrant=False).sum().backward()
    assert all(torch.equal(grad(p), g) for p, g in zip(handle.trainable_parameters(), plain, strict=True))


@pytest.mark.parametrize("initialiser", ["random", "lora-sb", "lora-xs", "pissa"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert, tiny_roberta])
def test_detach_gives_back_the_model_bit_for_bit(make: Make, initialiser: str) -> None:
    model = make().bfloat16() if initialiser == "pissa" else make()
    model.get_input_embeddings().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    wanted = [p.requires_grad for p in model.parameters()]
    modules = {name: id(module) for name, module in model.named_modules()}
    head = ["classifier"] if make in CLASSIFIERS else []
    handle = attach(model, frames_for(model, initialiser), extra_trainable=head)
    handle.load(random_state(handle))
    assert handle.detach() is model
    assert {name: id(module) for name, module in model.named_modules()} == modules
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert list(model.state_dict()) == list(before)
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_pre_hooks for module in model.modules())
    attach(model, frames_for(model, "random"))


def test_the_residual_base_is_not_written_into_the_model() -> None:
    model = tiny_gpt2()
    weight = model.transformer.h[0].mlp.c_fc.weight
    before = weight.detach().clone()
    handle = attach(model, frames_for(model, "pissa"))
    assert torch.equal(weight, before)
    base = handle.layers["transformer.h.0.mlp.c_fc"].base
    expected = (
        before.double()
        - handle.frames["transformer.h.0.mlp.c_fc"].delta(handle.frames["transformer.h.0.mlp.c_fc"].r0).T
    )
    torch.testing.assert_close(base.weight.double(), expected, rtol=0, atol=1e-7)


def test_the_state_goes_out_and_in_unchanged() -> None:
    handle = attached(tiny_bert, extra_trainable=["classifier"])
    state = random_state(handle)
    handle.load(state)
    again = handle.state()
    assert list(again) == handle.names
    assert all(torch.equal(again[name], state[name]) for name in state)
    again["classifier.bias"].zero_()
    assert torch.equal(handle.state()["classifier.bias"], state["classifier.bias"])
    assert all(value.dtype == torch.float32 and value.device.type == "cpu" for value in again.values())


def test_a_fresh_handle_holds_the_frames_initial_state() -> None:
    handle = attached(tiny_llama, "lora-sb")
    frames, state = handle.frames, handle.state()
    assert isinstance(frames, FrameSet)
    assert all(torch.equal(state[name], r0) for name, r0 in frames.initial_state().items())
    handle.load({name: value + 1 for name, value in state.items()})
    assert torch.equal(frames.initial_state()[handle.names[0]], state[handle.names[0]])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: s.pop(next(iter(s))), "FEDFT-2117"),
        (lambda s: s.update(extra=torch.zeros(1)), "FEDFT-2117"),
        (lambda s: s.update({next(iter(s)): torch.zeros(3, 4)}), "FEDFT-2117"),
        (lambda s: s.update({next(iter(s)): torch.zeros(4, 4, dtype=torch.int32)}), "FEDFT-2117"),
        (lambda s: s.update({list(s)[-1]: torch.full((4, 4), float("nan"))}), "FEDFT-2118"),
        (lambda s: s.update({list(s)[-1]: torch.full((4, 4), float("inf"))}), "FEDFT-2118"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(
    change: Callable[[dict[str, Tensor]], object], code: str
) -> None:
    handle = attached(tiny_llama, "lora-sb")
    before, state = handle.state(), random_state(handle)
    change(state)
    with pytest.raises(FedftError, match=code):
        handle.load(state)
    after = handle.state()
    assert all(torch.equal(after[name], before[name]) for name in before)


@given(st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_the_average_state_gives_the_average_of_the_weights(clients: int, seed: int) -> None:
    handle = attached(tiny_gpt2, "lora-sb")
    states = [random_state(handle, seed + i) for i in range(clients)]
    for name, frame in handle.frames.items():
        mean = torch.stack([state[name].double() for state in states]).sum(0).float() / clients
        average = frame.delta(mean)
        expected = sum(frame.delta(state[name]) for state in states) / clients
        assert (average - expected).norm() <= 1e-6 * expected.norm()


def test_training_changes_r_and_the_head_and_nothing_else() -> None:
    model = tiny_bert()
    handle = attach(model, frames_for(model), extra_trainable=["classifier"])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW(handle.trainable_parameters(), lr=0.1)
    first = per_sample_loss(model, tokens()).mean()
    for _ in range(5):
        optimiser.zero_grad()
        per_sample_loss(model, tokens()).mean().backward()
        optimiser.step()
    assert per_sample_loss(model, tokens()).mean() < 0.5 * first
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"{name}.R" for name in handle.frames} | set(handle.extra_names)


def test_in_a_bfloat16_model_the_head_trains_and_travels_in_float32() -> None:
    model = tiny_roberta().bfloat16()
    original = model.classifier.dense.weight.detach().clone()
    handle = attach(model, frames_for(model), extra_trainable=["classifier"])
    state = random_state(handle)
    handle.load(state)
    assert all(torch.equal(value, state[name]) for name, value in handle.state().items())
    logits = model(input_ids=tokens()).logits
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(grad(p).dtype == torch.float32 for p in handle.trainable_parameters())
    handle.detach()
    assert torch.equal(model.classifier.dense.weight, original)


def test_a_model_cast_after_attaching_is_refused() -> None:
    handle = attached(tiny_llama)
    handle.model.bfloat16()
    with pytest.raises(FedftError, match=r"FEDFT-2117 .*bfloat16"):
        handle.trainable_parameters()


def test_dropout_and_evaluation_mode_carry_over() -> None:
    model = tiny_llama()
    model.model.layers[0].train()
    handle = attach(model, frames_for(model))
    assert handle.layers["model.layers.0.mlp.up_proj"].training
    assert not handle.layers["model.layers.1.mlp.up_proj"].training


def test_attaching_twice_or_using_a_detached_handle_is_refused() -> None:
    handle = attached(tiny_llama)
    with pytest.raises(FedftError, match="FEDFT-2115"):
        attach(handle.model, handle.frames)
    handle.detach()
    for use in (handle.detach, handle.state, handle.trainable_parameters, lambda: handle.load({})):
        with pytest.raises(FedftError, match="FEDFT-2115"):
            use()


@pytest.mark.parametrize(
    ("name", "shape", "code"),
    [
        ("nothing", (6, 5), "FEDFT-2110"),
        ("model.embed_tokens", (64, 32), "FEDFT-2110"),
        ("model.layers.0.mlp.up_proj", (6, 5), "FEDFT-2114"),
        ("model.layers.0.mlp.up_proj", (32, 48), "FEDFT-2114"),
        ("lm_head", (64, 32), "FEDFT-2113"),
    ],
)
def test_frames_that_do_not_fit_leave_the_model_alone(name: str, shape: tuple[int, int], code: str) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    good = frames_for(model)["model.layers.0.mlp.down_proj"]
    frames = FrameSet({"model.layers.0.mlp.down_proj": good, name: make_frame(*shape)})
    with pytest.raises(FedftError, match=code):
        attach(model, frames)
    assert not any(isinstance(module, AdaptedLinear) for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("pattern", ["nothing", "bert.encoder.layer.0.output.dense", "class"])
def test_extra_patterns_that_match_nothing_or_a_frozen_base_are_refused(pattern: str) -> None:
    model = tiny_bert()
    with pytest.raises(FedftError, match="FEDFT-2116"):
        attach(model, frames_for(model), extra_trainable=["classifier", pattern])


def test_a_tied_extra_parameter_is_refused() -> None:
    model = tiny_llama(tie_word_embeddings=True)
    with pytest.raises(FedftError, match="FEDFT-2113"):
        attach(model, frames_for(model), extra_trainable=["model.embed_tokens"])


def test_generation_works_on_an_adapted_model() -> None:
    model = tiny_llama()
    handle = attach(model, frames_for(model))
    before = model.generate(tokens(2), max_new_tokens=5, do_sample=False)
    handle.detach()
    assert torch.equal(model.generate(tokens(2), max_new_tokens=5, do_sample=False), before)
