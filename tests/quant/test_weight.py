"""The stored weight: from and to bitsandbytes, digest, damaged parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.errors import FedftError
from fedft.quant import NF4Weight
from fedft.quant.weight import STATE
from tests.quant.test_nf4 import bnb, weights


@given(rows=st.integers(1, 20), columns=st.integers(1, 20).map(lambda n: 16 * n), nested=st.booleans())
@settings(max_examples=30, deadline=None)
def test_bitsandbytes_both_ways(rows: int, columns: int, nested: bool) -> None:
    w = weights((rows, columns), torch.bfloat16, seed=rows * columns)
    theirs, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=nested)
    taken = NF4Weight.from_bitsandbytes(theirs, state)
    packed, given_back = taken.to_bitsandbytes()
    assert torch.equal(packed, theirs)
    assert torch.equal(given_back.absmax, state.absmax)
    assert given_back.shape == state.shape
    assert given_back.dtype == state.dtype
    if nested:
        assert given_back.offset == state.offset
        assert torch.equal(given_back.state2.absmax, state.state2.absmax)
        assert torch.equal(given_back.state2.code, state.state2.code)
    if columns % 64 == 0:
        assert torch.equal(bnb.dequantize_4bit(packed, given_back), taken.dequantise(torch.bfloat16))


def test_own_weight_is_read_by_bitsandbytes_and_close_to_its() -> None:
    w = weights((128, 256), torch.bfloat16)
    own = NF4Weight.quantise(w)
    assert torch.equal(bnb.dequantize_4bit(*own.to_bitsandbytes()), own.dequantise(torch.bfloat16))
    theirs, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
    assert torch.equal(own.packed, theirs.view(-1))
    # bitsandbytes rounds to the nearest of 65536 bins before it picks an 8-bit code; ours is the nearest.
    assert (own.absmax != state.absmax).float().mean() < 0.02
    difference = own.dequantise(torch.float32) - bnb.dequantize_4bit(theirs, state).float()
    assert difference.norm() / w.float().norm() < 2e-3


def test_size_and_error_are_qloras() -> None:
    w = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    own = NF4Weight.quantise(w)
    assert own.nbytes * 8 / w.numel() == pytest.approx(4 + 8 / 64 + 32 / 64 / 256, abs=1e-9)
    error = (own.dequantise(torch.float32) - w).norm() / w.norm()
    assert 0.088 < error < 0.096


def test_quantised_from_bfloat16_whatever_the_dtype() -> None:
    w = weights((40, 48), torch.float32)
    assert NF4Weight.quantise(w).digest() == NF4Weight.quantise(w.bfloat16()).digest()


def test_digest_changes_with_every_part() -> None:
    own = NF4Weight.quantise(weights((64, 512), torch.float32))
    assert own.absmax2 is not None
    changed = [
        replace(own, packed=own.packed ^ 1),
        replace(own, absmax=own.absmax ^ 1),
        replace(own, absmax2=own.absmax2 * 2),
        replace(own, offset=own.offset * 2),
        replace(own, shape=(512, 64)),
    ]
    assert len({each.digest() for each in [own, *changed]}) == 6
    assert NF4Weight.from_state(own.state()).digest() == own.digest()


@pytest.mark.parametrize("missing", ["", "absmax", "quant_map", "nested_quant_map", STATE])
def test_a_missing_part_is_an_error(missing: str) -> None:
    state = NF4Weight.quantise(weights((4, 64), torch.float32)).state()
    del state[missing]
    with pytest.raises(FedftError, match="FEDFT-9011"):
        NF4Weight.from_state(state)


def test_damaged_parts_are_refused() -> None:
    own = NF4Weight.quantise(weights((8, 64), torch.float32))
    state = own.state()
    for name, part in {
        "": state[""][:-1],
        "absmax": state["absmax"].float(),
        "nested_absmax": torch.full_like(state["nested_absmax"], float("nan")),
        "quant_map": torch.linspace(-1, 1, 16),
        "nested_quant_map": state["nested_quant_map"][:-1],
        STATE: torch.frombuffer(bytearray(b'{"quant_type": "fp4"}'), dtype=torch.uint8),
    }.items():
        with pytest.raises(FedftError, match="FEDFT-9011"):
            NF4Weight.from_state(state | {name: part})
    with pytest.raises(FedftError, match="FEDFT-9011"):
        replace(own, packed=own.packed[:-1]).dequantise(torch.float32)


def test_only_float_matrices_are_quantised() -> None:
    for bad in (torch.ones(3), torch.ones(2, 2, dtype=torch.int32)):
        with pytest.raises(FedftError, match="FEDFT-9010"):
            NF4Weight.quantise(bad)
