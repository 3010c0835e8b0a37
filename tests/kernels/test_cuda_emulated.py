"""The CUDA kernels' arithmetic and data movement, run on the processor (kernels/tests/emulate.h)."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from fedft.errors import FedftError
from fedft.quant import reference
from fedft.quant.codebook import nested_map
from tests.kernels.emulated import Emulated, needs_compiler

pytestmark = needs_compiler

TOLERANCE = {torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float32: 1e-5}
Parts = tuple[Tensor, Tensor, tuple[Tensor, Tensor, float] | None]
HALVES = [torch.bfloat16, torch.float16]


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 8 * 256, 8 * 256 * 4 + 8, 20_001])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_nf4_is_the_references_bits(kernels: Emulated, n: int, dtype: torch.dtype) -> None:
    w = random(n, dtype=dtype)
    w[64:128] = 0
    packed, absmax = kernels.quantise(w)
    assert torch.equal(packed, reference.quantise(w)[0])
    assert torch.equal(absmax, reference.quantise(w)[1])
    code = nested_map(w.device)
    q8, absmax2, offset = kernels.nest(absmax, code)
    cases: tuple[Parts, ...] = ((packed, absmax, None), (packed, q8, (absmax2, code, offset)))
    for codes, scales, nested in cases:
        ours, expected = torch.full((n,), float("nan"), dtype=dtype), torch.empty(n, dtype=dtype)
        kernels.dequantise(codes, scales, nested, ours)
        reference.dequantise(codes, scales, nested, expected)
        assert torch.equal(ours, expected)


def test_a_weight_that_is_not_finite_is_refused(kernels: Emulated) -> None:
    with pytest.raises(FedftError, match="FEDFT-9010"):
        kernels.quantise(torch.tensor([1.0, float("inf")]))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    ("n", "width", "groups", "r"),
    [(1, 8, 1, 16), (70, 64, 1, 32), (65, 200, 1, 64), (64, 136, 3, 16), (40, 320, 3, 64), (33, 72, 1, 128)],
)
def test_adapter_down(kernels: Emulated, dtype: torch.dtype, n: int, width: int, groups: int, r: int) -> None:
    x, a = random(n, width, dtype=dtype), random(groups * r, width, dtype=dtype, seed=1)
    R = random(groups, r, r, seed=2)
    result = kernels.adapter_down(x, a, R, 0.5)
    assert result is not None
    u, w = result
    assert relative(u, x.double() @ a.double().T) < TOLERANCE[dtype]
    parts = zip(u.double().split(r, dim=1), R.to(dtype).double(), strict=True)
    assert relative(w, 0.5 * torch.cat([part @ square.T for part, square in parts], dim=1)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("n", "width", "r"), [(1, 8, 16), (130, 72, 32), (200, 136, 64), (64, 64, 192)])
def test_adapter_up_bwd(kernels: Emulated, dtype: torch.dtype, n: int, width: int, r: int) -> None:
    g, bt = random(n, width, dtype=dtype), random(r, width, dtype=dtype, seed=1)
    R, u = random(r, r, seed=2), random(n, r, dtype=dtype, seed=3)
    result = kernels.adapter_up_bwd(g, bt, R, u, 2.0)
    assert result is not None
    v, z, grad = result
    assert relative(v, g.double() @ bt.double().T) < TOLERANCE[dtype]
    assert relative(z, 2.0 * v.double() @ R.to(dtype).double()) < TOLERANCE[dtype]
    assert relative(grad, 2.0 * v.double().T @ u.double()) < 1e-5


def test_many_rows_use_the_larger_block(kernels: Emulated) -> None:
    n, r = 4096 + 70, 16
    g, bt = random(n, 16, dtype=torch.bfloat16), random(r, 16, dtype=torch.bfloat16, seed=1)
    R, u = random(r, r, seed=2), random(n, r, dtype=torch.bfloat16, seed=3)
    v, z, grad = kernels.adapter_up_bwd(g, bt, R, u, 1.0)  # type: ignore[misc]
    assert relative(v, g.double() @ bt.double().T) < 4e-3
    assert relative(z, v.double() @ R.bfloat16().double()) < 4e-3
    assert relative(grad, v.double().T @ u.double()) < 1e-5


@pytest.mark.parametrize(("width", "groups", "r"), [(12, 1, 16), (16, 1, 8), (16, 4, 64), (16, 1, 24)])
def test_shapes_without_a_kernel_are_left_to_torch(
    kernels: Emulated, width: int, groups: int, r: int
) -> None:
    x, a = random(4, width, dtype=torch.bfloat16), random(groups * r, width, dtype=torch.bfloat16)
    assert kernels.adapter_down(x, a, random(groups, r, r), 1.0) is None
    assert kernels.adapter_down(x.float(), a.float(), random(groups, r, r), 1.0) is None


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("r", [1, 16, 33, 64])
def test_per_sample_gradients_norms_and_clipped_sum(kernels: Emulated, dtype: torch.dtype, r: int) -> None:
    segments = torch.tensor([0, 5, 5, 50, 114])
    u, v = random(114, r, dtype=dtype), random(114, r, dtype=dtype, seed=1)
    norms = torch.full((4,), 3.0)
    gradients = kernels.per_sample_gradients(u, v, segments, 0.25, norms, add=True)
    pieces = itertools.pairwise(segments)
    expected = torch.stack([0.25 * v[a:b].double().T @ u[a:b].double() for a, b in pieces])
    assert relative(gradients, expected) < 1e-5
    torch.testing.assert_close(
        norms.double(), 3.0 + expected.flatten(1).square().sum(1), rtol=1e-5, atol=1e-5
    )
    again = torch.full((4,), float("nan"))
    kernels.per_sample_gradients(u, v, segments, 0.25, again, add=False)
    torch.testing.assert_close(again, norms - 3.0, rtol=1e-4, atol=1e-4)

    clip = float(expected[2].norm()) / 2
    total = kernels.clipped_sum(gradients, again, clip)
    factors = (clip / expected.flatten(1).norm(dim=1)).clamp(max=1.0)
    assert relative(total, (factors.view(-1, 1, 1) * expected).sum(0)) < 1e-5
    alone = kernels.clipped_sum(gradients[3:], again[3:], clip)
    assert alone.double().norm() <= clip * (1 + 1e-6)


@pytest.mark.parametrize("n", [1, 8, 31, 33, 300])
def test_ternary(kernels: Emulated, n: int) -> None:
    t = torch.randint(-1, 2, (n,), generator=torch.Generator().manual_seed(n)).to(torch.int8)
    planes = torch.full((2, (n + 7) // 8), 255, dtype=torch.uint8)
    for x in (t, t * torch.tensor(0.3)):
        kernels.ternary_pack(x, planes[0], planes[1])
        out = torch.empty(n, dtype=torch.int8)
        kernels.ternary_unpack(planes[0], planes[1], 0.0, out)
        assert torch.equal(out, t)
    floats = torch.empty(n)
    kernels.ternary_unpack(planes[0], planes[1], 0.7, floats)
    assert torch.equal(floats, t * torch.tensor(0.7))
    start = random(n)
    total = start.clone()
    kernels.ternary_add(planes[0], planes[1], 0.7, total)
    assert torch.equal(total, start + floats)
    weights, whole = torch.tensor([2**40, -3]), torch.full((n,), 5)
    both = planes.unsqueeze(1).expand(2, 2, -1).contiguous()
    kernels.ternary_accumulate(both[0], both[1], weights, whole)
    assert torch.equal(whole, 5 + t.long() * (2**40 - 3))
