from __future__ import annotations

import random
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedft.adapters import (
    FrameSet,
    InitialiserContext,
    SampleGradients,
    attach,
    build_frames,
    resolve_targets,
)
from fedft.adapters.frame import Frame
from fedft.errors import FedftError
from fedft.registries import FRAMES
from tests.adapters.models import Make, per_sample_loss, tiny_bert, tiny_gpt2, tiny_llama, tokens

NAMES = ("lora-sb", "lora-xs", "pissa", "random")


def matrix(out: int, inside: int, seed: int = 0) -> Tensor:
    return torch.randn(out, inside, generator=torch.Generator().manual_seed(seed))


def build(name: str, weight: Tensor, rank: int, **changes: Any) -> Frame:
    values: dict[str, Any] = {"name": "w", "rank": rank, "scale": 2.0, "seed": 3, "eta": 1e-2} | changes
    return FRAMES.get(name).build(weight, InitialiserContext(**values))


def truncated(step: np.ndarray, rank: int) -> np.ndarray:
    u, sigma, vt = np.linalg.svd(step)
    best: np.ndarray = (u[:, :rank] * sigma[:rank]) @ vt[:rank]
    return best


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def all_gradients() -> SampleGradients:
    return SampleGradients([tokens(3), tokens(2, seed=1)], per_sample_loss, layers_at_once=20)


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (128, 33), (1, 20)])
@pytest.mark.parametrize("name", NAMES)
def test_every_frame_is_orthonormal_to_one_millionth(name: str, shape: tuple[int, int]) -> None:
    frame = build(name, matrix(*shape), min(shape), gradient=matrix(*shape, seed=1))
    for rows in (frame.b.double().T, frame.a.double()):
        assert float((rows @ rows.T - torch.eye(len(rows))).abs().max()) <= 1e-6


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 10**6), st.data())
@settings(max_examples=60, deadline=None)
def test_lora_sb_is_the_truncated_svd_of_the_first_step(
    out: int, inside: int, seed: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(out, inside)))
    gradient = matrix(out, inside, seed)
    step = -3e-4 * np.sign(gradient.double().numpy())
    sigma = np.linalg.svd(step, compute_uv=False)
    gap = (sigma[rank - 1] - (sigma[rank] if rank < len(sigma) else 0)) / sigma[0]
    if gap < 1e-6:  # the truncated product is not determined by the matrix
        return
    frame = build("lora-sb", torch.empty(out, inside, device="meta"), rank, gradient=gradient, eta=3e-4)
    assert relative(frame.delta(frame.r0).numpy(), truncated(step, rank)) <= 1e-6


@pytest.mark.parametrize("shape", [(96, 160), (160, 96)])
def test_lora_sb_at_a_larger_size(shape: tuple[int, int]) -> None:
    gradient = matrix(*shape, seed=4)
    frame = build("lora-sb", gradient, 32, gradient=gradient, scale=0.125)
    step = -1e-2 * np.sign(gradient.double().numpy())
    assert relative(frame.delta(frame.r0).numpy(), truncated(step, 32)) <= 1e-6
    assert frame.r0.count_nonzero() == 32
    assert not frame.residual


def test_zero_entries_of_the_gradient_take_no_step() -> None:
    gradient = matrix(12, 9)
    gradient[:, 2], gradient[5] = 0.0, -0.0
    frame = build("lora-sb", gradient, 9, gradient=gradient)
    step = frame.delta(frame.r0)
    assert step[:, 2].abs().max() < 1e-9
    assert step[5].abs().max() < 1e-9
    torch.testing.assert_close(step, -1e-2 * torch.sign(gradient).double(), rtol=1e-6, atol=1e-9)


def test_a_gradient_of_lower_rank_still_gives_a_frame() -> None:
    gradient = torch.zeros(12, 9)
    gradient[3, 4] = -1.0
    frame = build("lora-sb", gradient, 6, gradient=gradient)
    torch.testing.assert_close(frame.delta(frame.r0)[3, 4], torch.tensor(1e-2).double(), rtol=1e-6, atol=0)


def test_lora_sb_follows_the_sign_alone() -> None:
    gradient = matrix(20, 10)
    one = build("lora-sb", gradient, 4, gradient=gradient)
    other = build("lora-sb", gradient, 4, gradient=gradient * 1e-20)
    assert FrameSet({"w": one}).digest() == FrameSet({"w": other}).digest()


def test_lora_xs_spans_the_leading_directions_of_the_weight() -> None:
    weight = matrix(40, 30)
    frame = build("lora-xs", weight, 8)
    core = frame.b.T.double() @ weight.double() @ frame.a.T.double()
    assert (
        relative((frame.b.double() @ core @ frame.a.double()).numpy(), truncated(weight.double().numpy(), 8))
        < 1e-6
    )
    assert not frame.r0.any()


def test_pissa_takes_the_leading_part_out_of_the_weight() -> None:
    weight = matrix(40, 30)
    frame = build("pissa", weight, 8)
    assert frame.residual
    assert relative(frame.delta(frame.r0).numpy(), truncated(weight.double().numpy(), 8)) < 1e-6


@pytest.mark.parametrize("name", ["lora-sb", "lora-xs", "pissa"])
def test_the_signs_of_singular_vectors_are_canonical(name: str) -> None:
    weight = matrix(40, 30)
    frame = build(name, weight, 8, gradient=weight)
    largest = frame.b.gather(0, frame.b.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert])
@pytest.mark.parametrize("name", NAMES)
def test_what_an_initialiser_declares_is_so(name: str, make: Make) -> None:
    model, chosen = make(), FRAMES.get(name)
    targets = resolve_targets(model, "auto")
    before = model(input_ids=tokens()).logits
    frames = build_frames(model, targets, initialiser=name, rank=4, gradients=all_gradients())
    attach(model, frames)
    change = (model(input_ids=tokens()).logits - before).abs().max().item()
    assert (change < 1e-5) == chosen.preserves_function
    assert chosen.changes_base == any(frame.residual for frame in frames.values())
    if chosen.needs == "nothing":
        assert not chosen.reads_data
    assert chosen.reads_data == (chosen.needs == "gradients")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_input_gives_the_same_frame_and_no_generator_moves(name: str) -> None:
    model = tiny_llama()
    targets = resolve_targets(model, ["mlp.*", "q_proj"])
    before = (
        torch.get_rng_state(),
        np.random.get_state(legacy=False)["state"]["key"].copy(),
        random.getstate(),
    )
    digests = set()
    for _ in range(2):
        torch.rand(1), np.random.rand(), random.random()
        frames = build_frames(model, targets, initialiser=name, rank=4, gradients=all_gradients())
        digests.add(frames.digest())
    torch.set_rng_state(before[0])
    state = random.getstate()
    frames = build_frames(model, targets, initialiser=name, rank=4, gradients=all_gradients())
    attach(model, frames).detach()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == state
    assert len(digests | {frames.digest()}) == 1


def test_numpy_state_is_untouched() -> None:
    model = tiny_llama()
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    build_frames(model, ["model.layers.0.mlp.up_proj"], initialiser="random", rank=4)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_not_changed(name: str) -> None:
    model = tiny_gpt2().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    build_frames(model, ["transformer.h.1.mlp.c_fc"], initialiser=name, rank=4, gradients=all_gradients())
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_half_precision_weight_is_decomposed_in_float64() -> None:
    layer = nn.Sequential(nn.Linear(20, 30).bfloat16())
    frame = build_frames(layer, ["0"], initialiser="lora-xs", rank=20)["0"]
    weight = layer.get_parameter("0.weight").detach().double()
    assert relative((frame.b.double() @ frame.b.double().T @ weight).detach().numpy(), weight.numpy()) < 1e-6


def test_one_full_gradient_is_alive_while_the_next_is_computed() -> None:
    model = nn.Sequential(*(nn.Linear(7, 9) for _ in range(4)))
    made: list[weakref.ref[Tensor]] = []

    def gradients(model: nn.Module, targets: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for name in targets:
            assert not any(each() is not None for each in made)
            gradient = matrix(9, 7)
            made.append(weakref.ref(gradient))
            pair = [(name, gradient)]
            del gradient
            yield pair.pop()

    build_frames(model, ["0", "1", "2", "3"], initialiser="lora-sb", rank=2, gradients=gradients)
    assert len(made) == 4


@pytest.mark.parametrize("rank", [0, -1, 8])
def test_a_rank_that_does_not_fit_is_refused(rank: int) -> None:
    with pytest.raises(FedftError, match=f"FEDFT-2104 rank {rank} does not fit 0"):
        build_frames(nn.Sequential(nn.Linear(7, 9)), ["0"], initialiser="random", rank=rank)


def test_a_zero_gradient_is_refused() -> None:
    model = nn.Sequential(nn.Linear(7, 9))
    gradients = SampleGradients([torch.zeros(2, 7)], lambda model, x: model(x).sum(1))
    with pytest.raises(FedftError, match="FEDFT-2107 0: the gradient is zero"):
        build_frames(model, ["0"], initialiser="lora-sb", rank=2, gradients=gradients)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused(bad: float) -> None:
    model = nn.Sequential(nn.Linear(7, 9))
    batch = torch.ones(2, 7)
    batch[1, 3] = bad
    gradients = SampleGradients([batch], lambda model, x: model(x).sum(1))
    with pytest.raises(FedftError, match="FEDFT-2107"):
        build_frames(model, ["0"], initialiser="lora-sb", rank=2, gradients=gradients)


@pytest.mark.parametrize("name", ["lora-xs", "pissa"])
def test_a_weight_that_is_not_finite_is_refused(name: str) -> None:
    model = nn.Sequential(nn.Linear(7, 9))
    model.get_parameter("0.weight").data[2, 3] = float("nan")
    with pytest.raises(FedftError, match="FEDFT-2107 0: the weight"):
        build_frames(model, ["0"], initialiser=name, rank=2)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"initialiser": "lora"}, "FEDFT-1010"),
        ({"initialiser": "dp-sketch"}, "FEDFT-2106"),
        ({"initialiser": "lora-sb"}, "FEDFT-2106"),
        ({"eta": 0.0}, "FEDFT-2106"),
        ({"eta": float("inf")}, "FEDFT-2106"),
        ({"scale": 0.0}, "FEDFT-2101"),
        ({"targets": ["1"]}, "FEDFT-2110"),
        ({"targets": ["7"]}, "FEDFT-2110"),
        ({"targets": []}, "FEDFT-2101"),
        ({"initialiser": "lora-sb", "gradients": lambda model, targets: []}, "FEDFT-2106"),
    ],
)
def test_bad_requests_are_refused(changes: dict[str, Any], code: str) -> None:
    request: dict[str, Any] = {"targets": ["0"], "initialiser": "random", "rank": 2}
    with pytest.raises(FedftError, match=code):
        build_frames(nn.Sequential(nn.Linear(7, 9), nn.ReLU()), **(request | changes))
