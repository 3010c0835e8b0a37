"""Everything at once on a quantised model: adapters, per-sample gradients, checkpointing, shared inputs."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedft.adapters.shared_input import SharedInput
from tests.privacy.models import (
    RANK,
    adapted_layers,
    adapted_model,
    make_batch,
    one_at_a_time,
    per_sample_loss,
    per_sample_rows,
)


@contextmanager
def apart(model: nn.Module) -> Iterator[None]:
    """Every layer computes its own u."""
    kept = {layer: layer.shared for layer in adapted_layers(model)}
    for layer in kept:
        layer.shared = None
    yield
    for layer, shared in kept.items():
        layer.shared = shared


def step(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = per_sample_loss(model, batch).sum()
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
def test_per_sample_gradients_equal_autograd_one_sample_at_a_time(kind: str, checkpointing: bool) -> None:
    model = adapted_model(kind, checkpointing=checkpointing, quantised=True)
    batch = make_batch(kind)

    expected = one_at_a_time(model, batch)

    bound = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(per_sample_rows(model, batch), expected, rtol=1e-5, atol=bound)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_sharing_an_input_changes_no_number(kind: str) -> None:
    model, batch = adapted_model(kind, quantised=True), make_batch(kind)
    assert sum(layer.shared is not None for layer in adapted_layers(model)) == (10 if kind == "llama" else 6)

    shared = step(model, batch)
    with apart(model):
        alone = step(model, batch)

    for ours, expected in zip(shared, alone, strict=True):
        torch.testing.assert_close(ours, expected)


class Products(TorchDispatchMode):
    """Counts products with the frames' A by their number of columns."""

    def __init__(self, inputs: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch, without annotations
        self.columns: Counter[int] = Counter()
        self._inputs = inputs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default and args[0].shape[1] in self._inputs:
            self.columns[result.shape[1]] += 1
        return result


def test_an_input_is_read_once_for_query_key_and_value_and_for_gate_and_up() -> None:
    model, batch = adapted_model("llama", quantised=True), make_batch("llama")

    with torch.no_grad(), Products({32, 48}) as products:
        model(input_ids=batch["input_ids"])

    # Two blocks: q, k, v together, gate and up together, o and down alone; the last is the output layer.
    assert products.columns == {3 * RANK: 2, 2 * RANK: 2, RANK: 4, 64: 1}


@pytest.mark.parametrize("case", ["same", "twice", "another", "changed"])
def test_only_the_very_same_input_is_shared(case: str) -> None:
    model = adapted_model("llama", quantised=True)
    attention = model.get_submodule("model.layers.0.self_attn")
    q, k = attention.get_submodule("q_proj"), attention.get_submodule("k_proj")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    wanted = {"another": 2 * x, "changed": x + 1}.get(case, x.clone())
    with apart(model):
        expected = k(wanted)

    q(x)
    if case == "twice":
        k(x)
    if case == "changed":
        x.add_(1)
    torch.testing.assert_close(k(wanted if case == "another" else x), expected)


def test_nothing_is_kept_when_all_have_had_their_part() -> None:
    model, batch = adapted_model("llama", quantised=True), make_batch("llama")
    with torch.no_grad():
        model(input_ids=batch["input_ids"])

    groups = {id(layer.shared): layer.shared for layer in adapted_layers(model) if layer.shared}
    assert len(groups) == 4
    for group in groups.values():
        assert isinstance(group, SharedInput)
        assert group._seen is None


def test_an_input_is_not_kept_alive() -> None:
    q = adapted_model("llama", quantised=True).get_submodule("model.layers.0.self_attn.q_proj")
    x = torch.randn(5, 32)
    alive = weakref.ref(x)
    q(x)
    del x
    gc.collect()
    assert alive() is None


def test_copies_and_moved_models_compute_the_same() -> None:
    model, batch = adapted_model("llama", quantised=True), make_batch("llama")
    expected = step(model, batch)
    copied = copy.deepcopy(model)
    moved = copy.deepcopy(model).double().float()

    for other in (copied, moved):
        for ours, theirs in zip(step(other, batch), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    layers = [layer for layer in adapted_layers(copied) if layer.shared]
    layers[0].A.zero_()  # its own, not the original's
    assert adapted_layers(model)[0].A.any()


def test_compiled_without_a_break() -> None:
    block = adapted_model("llama", quantised=True).get_submodule("model.layers.0.mlp")
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    compiled: Callable[[Tensor], Tensor] = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x))


def test_a_base_that_is_not_quantised_is_left_alone() -> None:
    assert not any(layer.shared for layer in adapted_layers(adapted_model("llama")))
