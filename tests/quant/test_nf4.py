"""NF4 against bitsandbytes and against its definition, by the kernels and by plain torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedft.errors import FedftError
from fedft.quant import reference, select
from fedft.quant.codebook import levels, nested_map
from fedft.quant.cpu_library import CpuLibrary
from tests.quant import nf4_numpy

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
bnb = pytest.importorskip("bitsandbytes.functional")

CPU = torch.device("cpu")
Parts = tuple[Tensor, Tensor, tuple[Tensor, Tensor, float] | None]
"""Packed codes, scales of the blocks and, where these are coded too, their own scales."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Reference:
    """The plain torch implementation behind the kernels' interface."""

    quantise = staticmethod(reference.quantise)
    nest = staticmethod(reference.nest)
    dequantise = staticmethod(reference.dequantise)


@pytest.fixture(params=["torch", "scalar", "avx2", "avx512", "avx512_bf16"])
def nf4(request: pytest.FixtureRequest) -> Iterator[CpuLibrary | type[Reference]]:
    """Every implementation in turn."""
    library = select.cpu()
    if request.param == "torch":
        yield Reference
        return
    if library is None:
        pytest.skip("no compiled kernels on this machine")
    try:
        library.set_tier(request.param)
    except FedftError:
        pytest.skip(f"this processor has no {request.param}")
    yield library
    library.set_tier(None)


def weights(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, spread: float = 0.02) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * spread).to(dtype)


def filled(nf4: CpuLibrary | type[Reference], parts: Parts, n: int, dtype: torch.dtype) -> Tensor:
    """Dequantise into a poisoned buffer."""
    out = torch.full((n,), float("nan"), dtype=dtype)
    packed, absmax, nested = parts
    nf4.dequantise(packed, absmax, nested, out)
    return out


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(
        a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)
    )


def test_the_levels_are_normal_quantiles_and_the_maps_are_bitsandbytes() -> None:
    assert np.abs(nf4_numpy.codebook() - levels(CPU).numpy()).max() < 2e-7
    assert torch.equal(levels(CPU), bnb.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(nested_map(CPU), bnb.create_dynamic_map())


@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 300) | st.sampled_from([16, 48, 64, 80, 128, 176, 192, 256, 1024]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([1e-3, 0.02, 1.0, 100.0]),
    zeros=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_equals_bitsandbytes(
    rows: int, columns: int, dtype: torch.dtype, seed: int, spread: float, zeros: bool
) -> None:
    w = weights((rows, columns), dtype, seed, spread)
    if zeros:
        w[rows // 2] = 0
    n = w.numel()
    code = levels(CPU).numpy()
    theirs, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4")
    nested_theirs, nested_state = bnb.quantize_4bit(
        w, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    compiled = select.cpu()
    for nf4 in (Reference,) if compiled is None else (Reference, compiled):
        packed, absmax = nf4.quantise(w)
        assert torch.equal(packed, theirs.view(-1))
        assert same_bits(absmax, state.absmax)
        assert nf4_numpy.worst_choice(w.float().view(-1).numpy(), packed.numpy(), absmax.numpy(), code) < 1e-6

        own: Parts = (packed, absmax, None)
        nested = (nested_state.state2.absmax, nested_state.state2.code, nested_state.offset.item())
        taken: Parts = (nested_theirs.view(-1), nested_state.absmax, nested)
        for parts, their_packed, their_state in ((own, theirs, state), (taken, nested_theirs, nested_state)):
            scale = nf4_numpy.scales(parts[1].numpy(), None if parts[2] is None else as_numpy(parts[2]))
            truth = nf4_numpy.dequantise(parts[0].numpy(), scale, n, code)
            for out in DTYPES:
                ours = filled(nf4, parts, n, out)
                assert same_bits(ours, nf4_numpy.rounded(truth, out))
                their_state.dtype = out
                agrees = same_bits(bnb.dequantize_4bit(their_packed, their_state), ours)
                # bitsandbytes 0.50 reads wrong scales when rows do not end where blocks do.
                assert agrees or columns % 64 != 0


def as_numpy(nested: tuple[Tensor, Tensor, float]) -> tuple[np.ndarray, np.ndarray, float]:
    return nested[0].numpy(), nested[1].numpy(), nested[2]


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 127, 16384, 16384 * 3 + 77])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_implementation_gives_the_same_bits(
    nf4: CpuLibrary | type[Reference], n: int, dtype: torch.dtype
) -> None:
    w = weights((n,), dtype, seed=n)
    w[64:128] = 0
    packed, absmax = nf4.quantise(w)
    expected_packed, expected_absmax = reference.quantise(w)
    assert torch.equal(packed, expected_packed)
    assert same_bits(absmax, expected_absmax)

    code = nested_map(CPU)
    q8, absmax2, offset = nf4.nest(absmax, code)
    expected = reference.nest(absmax, code)
    assert torch.equal(q8, expected[0])
    assert same_bits(absmax2, expected[1])
    assert offset == expected[2]

    for parts in ((packed, absmax, None), (packed, q8, (absmax2, code, offset))):
        for out in DTYPES:
            assert same_bits(filled(nf4, parts, n, out), filled(Reference, parts, n, out))


def test_a_tie_goes_to_the_lower_level(nf4: CpuLibrary | type[Reference]) -> None:
    table = levels(CPU)
    w = torch.zeros(64)
    w[:15] = (table[:-1] + table[1:]) / 2
    w[15] = 1.0
    packed, _ = nf4.quantise(w)
    assert nf4_numpy.unpack(packed.numpy(), 64)[:16].tolist() == [*range(15), 15]


def test_zero_blocks_and_the_smallest_numbers(nf4: CpuLibrary | type[Reference]) -> None:
    w = torch.zeros(192 + 10)
    w[64:128] = torch.tensor(1e-42)  # subnormal: its reciprocal is infinite
    packed, absmax = nf4.quantise(w)
    assert packed[:32].unique().tolist() == [0x77]
    assert absmax[0] == 0.0
    assert torch.isfinite(filled(nf4, (packed, absmax, None), 202, torch.float32)).all()
    for out in DTYPES:
        parts = (packed, absmax, None)
        assert same_bits(filled(nf4, parts, 202, out), filled(Reference, parts, 202, out))


@pytest.mark.parametrize("scale", [1e-44, 1e-39, 3e-38, 1e-37, 1e-31, 1e30, 3e38, float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_scales_round_alike(
    nf4: CpuLibrary | type[Reference], scale: float, dtype: torch.dtype
) -> None:
    packed = torch.arange(256, dtype=torch.uint8)
    absmax = torch.full((8,), 0.5)
    absmax[3] = scale
    ours = filled(nf4, (packed, absmax, None), 512, dtype).float()
    torch.testing.assert_close(
        ours, filled(Reference, (packed, absmax, None), 512, dtype).float(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 70, 129])
def test_a_weight_that_is_not_finite_is_refused(
    nf4: CpuLibrary | type[Reference], bad: float, at: int
) -> None:
    w = weights((130,), torch.float32)
    w[at] = bad
    with pytest.raises(FedftError, match="FEDFT-9010"):
        nf4.quantise(w)


def test_the_second_level_takes_the_nearest_code(nf4: CpuLibrary | type[Reference]) -> None:
    absmax = weights((1000,), torch.float32, seed=3).abs() + 0.01
    code = nested_map(CPU)
    q8, absmax2, offset = nf4.nest(absmax, code)
    assert offset == pytest.approx(absmax.double().mean().item(), rel=1e-7)
    scaled = (absmax - offset).double() / absmax2.repeat_interleave(256)[:1000].double()
    distance = (scaled.unsqueeze(1) - code.double()).abs()
    chosen = distance.gather(1, q8.long().unsqueeze(1)).squeeze(1)
    assert (chosen - distance.min(dim=1).values).max() < 1e-6


def test_the_offset_does_not_depend_on_order() -> None:
    absmax = weights((5000,), torch.float32, seed=4).abs()
    shuffled = absmax[torch.randperm(5000, generator=torch.Generator().manual_seed(0))]
    code = nested_map(CPU)
    assert reference.nest(absmax, code)[2] == reference.nest(shuffled, code)[2]


def test_threads_do_not_change_a_bit(nf4: CpuLibrary | type[Reference]) -> None:
    w = weights((16384 * 5 + 100,), torch.bfloat16)
    code = nested_map(CPU)

    def everything() -> list[Tensor]:
        packed, absmax = nf4.quantise(w)
        q8, absmax2, offset = nf4.nest(absmax, code)
        out = filled(nf4, (packed, q8, (absmax2, code, offset)), w.numel(), torch.bfloat16)
        return [packed, absmax, q8, absmax2, torch.tensor(offset), out]

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(everything())
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_large_outputs_bypass_the_caches_with_the_same_bits(nf4: CpuLibrary | type[Reference]) -> None:
    n = 13 * 2**20  # 26 MiB of bfloat16
    packed = torch.arange(256, dtype=torch.uint8).repeat(n // 512)
    absmax = torch.linspace(0.01, 0.02, n // 64)
    out = filled(nf4, (packed, absmax, None), n, torch.bfloat16)
    quarter = n // 4
    pieces = []
    for q, scales in zip(packed.split(quarter // 2), absmax.split(quarter // 64), strict=True):
        pieces.append(filled(Reference, (q, scales, None), quarter, torch.bfloat16))
    assert same_bits(out, torch.cat(pieces))
