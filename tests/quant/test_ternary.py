"""Ternary bit planes against numpy, by every implementation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedft.errors import FedftError
from fedft.quant import select, ternary

SIZES = st.integers(0, 70) | st.sampled_from([255, 256, 257, 4096, 4097, 5000])
every_implementation = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["torch", "scalar", "avx2", "avx512"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setattr(select, "cpu", lambda: None)
        yield "torch"
        return
    library = select.cpu()
    if library is None:
        pytest.skip("no compiled kernels on this machine")
    try:
        library.set_tier(request.param)
    except FedftError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    library.set_tier(None)


def signs(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, n).astype(np.int8)


def planes(t: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(np.packbits(side, bitorder="little")) for side in (t > 0, t < 0))  # type: ignore[return-value]


@given(n=SIZES, seed=st.integers(0, 1000), as_float=st.booleans())
@every_implementation
def test_pack_is_numpys_and_unpack_is_its_inverse(n: int, seed: int, as_float: bool) -> None:
    t = signs(n, seed)
    x = torch.from_numpy(t.astype(np.float32) * 0.3 if as_float else t)
    pos, neg = ternary.pack(x)
    assert torch.equal(pos, planes(t)[0])
    assert torch.equal(neg, planes(t)[1])
    assert torch.equal(ternary.unpack(pos, neg, n), torch.from_numpy(t))
    assert torch.equal(ternary.unpack(pos, neg, n, 0.37), torch.from_numpy(t) * torch.tensor(0.37))


@given(n=SIZES, seed=st.integers(0, 1000))
@every_implementation
def test_add_and_accumulate(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clients = int(rng.integers(1, 6))
    t = np.stack([signs(n, seed + c) for c in range(clients)])
    weights = rng.integers(-(2**61), 2**61, clients)
    start = rng.integers(-(2**62), 2**62, n)
    total = torch.from_numpy(start.copy())
    pos, neg = (torch.stack(side) for side in zip(*map(planes, t), strict=True))
    ternary.accumulate_(total, pos.contiguous(), neg.contiguous(), torch.from_numpy(weights))
    with np.errstate(over="ignore"):
        assert np.array_equal(total.numpy(), start + (t.astype(np.int64) * weights[:, None]).sum(axis=0))

    x = rng.standard_normal(n).astype(np.float32)
    result = torch.from_numpy(x.copy())
    ternary.add_(result, *planes(t[0]), 0.1)
    assert np.array_equal(result.numpy(), x + t[0] * np.float32(0.1))


def test_both_bits_set_is_zero_and_bits_beyond_the_end_are_ignored() -> None:
    pos = torch.full((9,), 0b1111_0101, dtype=torch.uint8)
    neg = torch.full((9,), 0b1010_0110, dtype=torch.uint8)
    expected = torch.tensor([1, -1, 0, 0, 1, 0, 1, 0], dtype=torch.int8).repeat(9)[:67]
    assert torch.equal(ternary.unpack(pos, neg, 67), expected)
    assert torch.equal(ternary.unpack(pos, neg, 67, 2.0), expected * 2.0)
    total = torch.full((67,), -0.0)
    ternary.add_(total, pos, neg, 2.0)
    assert torch.equal(total, expected * 2.0)
    assert bool(torch.signbit(total[2]))  # untouched: -0 stays -0
    whole = torch.zeros(67, dtype=torch.int64)
    ternary.accumulate_(whole, pos[None], neg[None], torch.tensor([3]))
    assert torch.equal(whole, expected.long() * 3)


def test_nan_has_no_sign() -> None:
    pos, neg = ternary.pack(torch.tensor([float("nan"), 1.0, -0.0] * 8))
    assert torch.equal(ternary.unpack(pos, neg, 24), torch.tensor([0, 1, 0] * 8, dtype=torch.int8))


def test_wrong_sizes_are_refused() -> None:
    pos, neg = ternary.pack(torch.ones(20))
    for call in (
        lambda: ternary.unpack(pos, neg, 25),
        lambda: ternary.unpack(pos, neg[:2], 20),
        lambda: ternary.add_(torch.zeros(9), pos, neg, 1.0),
        lambda: ternary.accumulate_(
            torch.zeros(20, dtype=torch.int64), pos[None], neg[None], torch.ones(2).long()
        ),
        lambda: ternary.pack(torch.ones(20, dtype=torch.float64)),
    ):
        with pytest.raises(FedftError, match="FEDFT-9014"):
            call()
