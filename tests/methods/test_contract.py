"""What every method must do, those of other packages included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn

from fedft.adapters import AdapterHandle, Frames, SampleGradients, attach, export_peft, merge, resolve_targets
from fedft.config import RunConfig
from fedft.config.load import check, from_json
from fedft.errors import FedftError
from fedft.methods import Method
from fedft.methods.averaging import AveragingError
from fedft.quant import NF4, quantise_model
from fedft.registries import METHODS
from fedft.tensors import Arrays
from fedft.training.model_runtime import ModelRuntime
from tests.adapters.models import per_sample_loss, tiny_bert, tiny_llama, tokens
from tests.federation import run_inline, tiny_config

RANK, SCALE = 4, 0.5
METHOD_NAMES = ("fedsb", "fedit", "ffa-lora", "diagonal")
INEXACT = {"fedit"}


def configured(name: str) -> RunConfig:
    return check({"method": name, "adapter": {"rank": RANK, "scale": SCALE, "initialiser": "random"}})


def no_gradients() -> SampleGradients:
    raise AssertionError("this frame needs none")


def frames_for(method: Method, model: nn.Module) -> Frames:
    targets = resolve_targets(model, "auto")
    return method.build_frames(model, targets, configured(method.name), no_gradients)


def adapted(name: str, make: Any = tiny_llama) -> AdapterHandle:
    model = make()
    head = ["classifier"] if make is tiny_bert else []
    return attach(model, frames_for(METHODS.get(name), model), extra_trainable=head)


def random_state(handle: AdapterHandle, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 0.3, value.shape).astype(np.float32) for name, value in handle.state().items()
    }


def weighted(shares: NDArray[np.float64], values: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.tensordot(shares, np.stack(values).astype(np.float64), axes=1).astype(np.float32)


def tensors(state: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in state.items()}


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=tokens()).logits
    return found


def test_every_method_is_listed() -> None:
    assert METHODS.names() == METHOD_NAMES
    assert [METHODS.get(name).name for name in METHOD_NAMES] == list(METHOD_NAMES)
    assert {name for name in METHOD_NAMES if not METHODS.get(name).exact} == INEXACT


@pytest.mark.parametrize("name", METHOD_NAMES)
@given(weights=st.lists(st.integers(1, 1000), min_size=1, max_size=5), seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_the_mean_of_the_states_against_the_mean_of_the_changes(
    name: str, weights: list[int], seed: int
) -> None:
    handle, method = adapted(name), METHODS.get(name)
    frames, before = handle.frames, random_state(handle, seed)
    after = [random_state(handle, seed + 1 + index) for index in range(len(weights))]
    updates = [method.update(before, state) for state in after]
    shares = np.array(weights) / sum(weights)
    mean = {key: weighted(shares, [update[key] for update in updates]) for key in before}
    measured = AveragingError(method, frames, before)
    for weight, update in zip(weights, updates, strict=True):
        measured.add(update, weight)

    missing = wanted = 0.0
    new = tensors(method.next_state(before, mean))
    for layer, frame in frames.items():
        changes = [frame.change(frames.values_of(layer, tensors(state))) for state in after]
        exact = sum(p * change for p, change in zip(shares, changes, strict=True))
        found = frame.change(frames.values_of(layer, new))
        missing += float((exact - found).square().sum())
        wanted += float(exact.square().sum())
        if method.exact:
            assert (found - exact).norm() <= 1e-6 * exact.norm(), layer

    expected = (missing / wanted) ** 0.5
    assert measured.relative(mean) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert method.exact or len(weights) == 1 or expected > 1e-3


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_an_update_leads_from_the_state_before_to_the_one_after(name: str) -> None:
    handle, method = adapted(name), METHODS.get(name)
    before, after = random_state(handle, 1), random_state(handle, 2)
    reached = method.next_state(before, method.update(before, after))
    nothing = method.next_state(before, method.update(before, before))
    for key in before:
        np.testing.assert_allclose(reached[key], after[key], rtol=0, atol=1e-6)
        assert reached[key].dtype == np.float32
        np.testing.assert_array_equal(nothing[key], before[key])


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_in_the_base_state_the_model_is_the_base(name: str) -> None:
    expected, handle = logits(tiny_llama()), adapted(name)
    handle.load(tensors(random_state(handle, 3)))
    assert not torch.allclose(logits(handle.model), expected, atol=1e-3)
    handle.load(handle.state() | handle.frames.base_state())
    torch.testing.assert_close(logits(handle.model), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_change_is_what_the_layers_compute(name: str) -> None:
    handle = adapted(name)
    state = tensors(random_state(handle, 4))
    handle.load(state)
    for layer, frame in handle.frames.items():
        x = torch.randn(5, frame.shape[1], generator=torch.Generator().manual_seed(0))
        values = handle.frames.values_of(layer, state)
        change = frame.change(values)
        with torch.no_grad():
            added = handle.layers[layer](x) - handle.originals[layer](x)
        torch.testing.assert_close(added.double(), x.double() @ change.T, rtol=1e-4, atol=1e-5)
        a, b = frame.factors(values)
        torch.testing.assert_close(b.double() @ a.double(), change, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_frames_are_the_same_on_every_machine_and_survive_the_way(name: str) -> None:
    method = METHODS.get(name)
    assert method.frame_facts(configured(name)).reproducible
    frames = frames_for(method, tiny_llama())
    torch.rand(1)  # nothing may depend on the global generator
    again = frames_for(method, tiny_llama())
    data = frames.to_bytes()
    assert method.read_frames(data).digest() == frames.digest() == again.digest()
    with pytest.raises(FedftError, match="FEDFT-2103"):
        again.require_digest("0" * 64)
    for broken in (data[:-1], data + b"\0", b"", b"{}"):
        with pytest.raises(FedftError, match="FEDFT-2109"):
            method.read_frames(broken)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_number_of_trained_elements_is_known_before(name: str) -> None:
    handle, method = adapted(name), METHODS.get(name)
    counted = sum(method.trained_elements(frame.shape, RANK) for frame in handle.frames.values())
    assert counted == sum(p.numel() for p in handle.trainable_parameters())


@pytest.mark.parametrize("make", [tiny_llama, tiny_bert])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_stock_peft_loads_the_export_and_the_merged_model_agrees(
    name: str, make: Any, tmp_path: Path
) -> None:
    handle = adapted(name, make)
    handle.load(tensors(random_state(handle, 5)))
    expected = logits(handle.model)
    kind = "SEQ_CLS" if make is tiny_bert else "CAUSAL_LM"
    export_peft(handle, tmp_path, base_model="base", task_type=kind)
    loaded = PeftModel.from_pretrained(make(), str(tmp_path)).eval()
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(merge(handle)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if name != "diagonal"])
def test_a_quantised_base_can_be_trained_on(name: str) -> None:
    model = tiny_llama()
    quantise_model(model, NF4)
    handle = attach(model, frames_for(METHODS.get(name), model))
    handle.load(tensors(random_state(handle, 6)))
    per_sample_loss(model, tokens()).mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in handle.trainable_parameters())


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_federation_ends_with_the_same_bits_when_it_is_resumed(name: str, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        **{"method": name, "codec.name": "ternary", "codec.downlink": "int8", "evaluation.before": False},
    )
    store, run = run_inline(config)
    rounds = store.rounds(run.id)
    counted = ModelRuntime(config).count_trainable()
    assert run.status == "completed"
    assert counted == sum(array.size for array in store.state(run.id, 3).values())
    assert all(update.status == "accepted" for record in rounds for update in record.updates)

    store.roll_back(run.id, 2)
    again = store.run(run.id)
    assert run_inline(from_json(again.config), store=store, run=again)[1].final_digest == run.final_digest


def test_an_unknown_method_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(FedftError, match=r"FEDFT-1003 (.|\n)*method: .*'fedsb', 'fedit', 'ffa-lora'"):
        check({"method": "fedavg"})


@pytest.mark.parametrize("mechanism", ["example", "client"])
def test_private_fedit_is_refused_before_any_work(mechanism: str) -> None:
    with pytest.raises(FedftError, match=r"privacy\.mechanism: is not defined for fedit"):
        check({"method": "fedit", "privacy": {"mechanism": mechanism}, "rounds": {"weighting": "uniform"}})
