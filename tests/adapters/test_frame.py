from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.adapters import Frame, FrameSet
from fedft.adapters.initialisers.random import orthonormal_columns
from fedft.errors import FedftError


def make_frame(out: int = 6, inside: int = 5, rank: int = 3, *, key: str = "k", **changes: Any) -> Frame:
    parts: dict[str, Any] = {
        "b": torch.from_numpy(orthonormal_columns(out, rank, key + "b")).float(),
        "a": torch.from_numpy(orthonormal_columns(inside, rank, key + "a")).float().T,
        "r0": torch.from_numpy(np.random.default_rng(5).normal(size=(rank, rank))).float(),
        "scale": 0.5,
    }
    return Frame(**(parts | changes))


@st.composite
def frame_sets(draw: st.DrawFn) -> FrameSet:
    names = draw(st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=3))
    frames = {}
    for name in names:
        out, inside = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        rank = draw(st.integers(1, min(out, inside)))
        entries = st.floats(width=32, allow_nan=False, allow_infinity=False)
        r0 = draw(st.lists(entries, min_size=rank * rank, max_size=rank * rank))
        scale = draw(st.floats(1e-6, 1e6))
        r0_matrix = torch.tensor(r0, dtype=torch.float32).reshape(rank, rank)
        frames[name] = make_frame(
            out, inside, rank, key=name, r0=r0_matrix, scale=scale, residual=draw(st.booleans())
        )
    return FrameSet(frames)


@given(frame_sets())
@settings(max_examples=60, deadline=None)
def test_bytes_round_trip_exactly(frames: FrameSet) -> None:
    data = frames.to_bytes()
    again = FrameSet.from_bytes(data)
    assert again.to_bytes() == data
    assert again.digest() == frames.digest()
    for name, frame in frames.items():
        assert again[name].scale == frame.scale
        assert again[name].residual == frame.residual
        assert torch.equal(again[name].r0.view(torch.int32), frame.r0.view(torch.int32))


@given(frame_sets(), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_refused_or_decode_to_another_digest(frames: FrameSet, data: st.DataObject) -> None:
    encoded = bytearray(frames.to_bytes())
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        decoded = FrameSet.from_bytes(bytes(encoded))
    except FedftError:
        return
    assert decoded.digest() != frames.digest()


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FedftError, match="FEDFT-2109"):
        FrameSet.from_bytes(data)


@pytest.mark.parametrize("cut", [0, 1, 8, 100, -1])
def test_truncated_bytes_are_refused(cut: int) -> None:
    with pytest.raises(FedftError, match="FEDFT-2109"):
        FrameSet.from_bytes(FrameSet({"x": make_frame()}).to_bytes()[:cut])


@pytest.mark.parametrize(
    "change",
    [
        {"w.b": None},
        {"w.extra": torch.zeros(1)},
        {"w.scale": torch.ones(1)},
        {"w.scale": torch.ones(2, dtype=torch.float64)},
        {"w.residual": torch.tensor([2], dtype=torch.uint8)},
        {"w.residual": torch.tensor([0], dtype=torch.int64)},
    ],
)
def test_a_wrong_set_of_parts_is_refused(change: dict[str, torch.Tensor | None]) -> None:
    parts = safetensors.torch.load(FrameSet({"w": make_frame()}).to_bytes()) | change
    kept = {name: value for name, value in parts.items() if value is not None}
    with pytest.raises(FedftError, match="FEDFT-2109"):
        FrameSet.from_bytes(safetensors.torch.save(kept, metadata={"format": "fedft-frames/1"}))


def test_another_format_version_is_refused() -> None:
    parts = safetensors.torch.load(FrameSet({"w": make_frame()}).to_bytes())
    with pytest.raises(FedftError, match="FEDFT-2109"):
        FrameSet.from_bytes(safetensors.torch.save(parts, metadata={"format": "fedft-frames/2"}))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"b": torch.zeros(6, 3, dtype=torch.float64)}, "2101"),
        ({"b": torch.zeros(6)}, "2101"),
        ({"b": torch.eye(6)[:, :2]}, "2101"),
        ({"a": torch.eye(4, 5)}, "2101"),
        ({"r0": torch.full((3, 3), math.nan)}, "2101"),
        ({"scale": 0.0}, "2101"),
        ({"scale": -1.0}, "2101"),
        ({"scale": math.inf}, "2101"),
        ({"b": torch.eye(6)[:, :3] * (1 + 2e-6)}, "2102"),
        ({"a": torch.ones(3, 5)}, "2102"),
        ({"b": torch.eye(6, 0), "a": torch.eye(0, 5), "r0": torch.zeros(0, 0)}, "2104"),
    ],
)
def test_a_malformed_frame_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(FedftError, match=f"FEDFT-{code}"):
        make_frame(**change)


def test_orthonormality_is_checked_to_one_millionth() -> None:
    make_frame(b=torch.eye(6)[:, :3] * (1 + 4e-7))
    with pytest.raises(FedftError, match="FEDFT-2102"):
        make_frame(b=torch.eye(6)[:, :3] * (1 + 7e-7))


def test_the_set_is_sorted_and_the_digest_ignores_the_order_of_making() -> None:
    one, two = make_frame(key="1"), make_frame(key="2")
    forwards, backwards = FrameSet({"p": one, "q": two}), FrameSet({"q": two, "p": one})
    assert list(backwards) == ["p", "q"]
    assert forwards.digest() == backwards.digest()
    assert FrameSet({"q": one, "p": two}).digest() != forwards.digest()


@pytest.mark.parametrize("change", [{"scale": 0.25}, {"residual": True}, {"r0": torch.zeros(3, 3)}])
def test_the_digest_covers_everything(change: dict[str, Any]) -> None:
    assert FrameSet({"w": make_frame(**change)}).digest() != FrameSet({"w": make_frame()}).digest()


def test_digest_mismatch_is_an_error_that_shows_both() -> None:
    frames = FrameSet({"w": make_frame()})
    frames.require_digest(frames.digest())
    with pytest.raises(FedftError, match=f"FEDFT-2103.*0000.*{frames.digest()[:16]}"):
        frames.require_digest("0" * 64)


def test_sizes_and_the_initial_state() -> None:
    frames = FrameSet({"w": make_frame(6, 5, 3), "v": make_frame(4, 4, 2)})
    assert frames.num_parameters == 9 + 4
    assert frames.nbytes == 4 * (6 * 3 + 3 * 5 + 9 + 4 * 2 + 2 * 4 + 4)
    state = frames.initial_state()
    state["w"].zero_()
    assert frames["w"].r0.any()


def test_nothing_outside_can_change_a_frame() -> None:
    r0 = torch.zeros(3, 3)
    frames = FrameSet({"v": make_frame(r0=r0), "w": make_frame(r0=r0)})
    digest = frames.digest()
    r0.add_(1)
    assert frames.digest() == digest
    frames.to_bytes()


@pytest.mark.parametrize("frames", [{}, {"": None}])
def test_a_set_without_names_is_refused(frames: dict[str, Frame]) -> None:
    with pytest.raises(FedftError, match="FEDFT-2101"):
        FrameSet(frames)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_average_of_r_is_the_average_of_the_updates(
    out: int, inside: int, clients: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rank = min(out, inside)
    frame = make_frame(out, inside, rank, scale=1.7)
    states = [torch.from_numpy(generator.normal(size=(rank, rank))).float() for _ in range(clients)]
    weights = generator.dirichlet(np.ones(clients))
    average = sum(w * r.double() for w, r in zip(weights, states, strict=True)).float()
    b, a = frame.b.double().numpy(), frame.a.double().numpy()
    expected = sum(w * 1.7 * b @ r.double().numpy() @ a for w, r in zip(weights, states, strict=True))
    error = np.linalg.norm(frame.delta(average).numpy() - expected) / np.linalg.norm(expected)
    assert error <= 1e-6
