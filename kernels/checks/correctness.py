"""Every CUDA kernel against float64 or the reference's bits, on random inputs and poisoned outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fedft.quant import reference
from fedft.quant.codebook import nested_map
from fedft.quant.cuda_library import CudaLibrary

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}
HALVES = (torch.bfloat16, torch.float16)
LENGTHS = (1, 63, 64, 65, 2048 * 4 + 8, 176 * 128, 1_000_003)
SHAPES = ((1, 64, 1, 16), (70, 200, 1, 32), (300, 1024, 3, 64), (129, 88, 1, 128), (5000, 256, 1, 64))
"""Of the adapter's products: rows, inner dimension, groups, rank."""

Check = Callable[[CudaLibrary, torch.device, torch.Generator], Iterator[tuple[str, bool]]]


def relative(ours: Tensor, exact: Tensor) -> float:
    ours, exact = ours.double(), exact.double()
    return float((ours - exact).norm() / exact.norm().clamp(min=1e-300))


def random(generator: torch.Generator, device: torch.device, *shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=generator).to(device, dtype)


def poison(device: torch.device) -> None:
    """Leave NaNs in the allocator's free blocks, so that memory nobody writes does not look right."""
    if device.type == "cuda":
        for size in (2**12, 2**16, 2**20, 2**24):
            torch.full((size,), float("nan"), device=device)


def nf4(kernels: CudaLibrary, device: torch.device, generator: torch.Generator) -> Iterator[tuple[str, bool]]:
    code = nested_map(device)
    for dtype in TOLERANCE:
        for n in LENGTHS:
            w = random(generator, device, n, dtype=dtype)
            w[64:128] = 0
            packed, absmax = kernels.quantise(w)
            expected = reference.quantise(w.cpu())
            same = torch.equal(packed.cpu(), expected[0]) and torch.equal(absmax.cpu(), expected[1])
            yield f"quantise {dtype} {n}", same
            q8, absmax2, offset = kernels.nest(absmax, code)
            again = reference.nest(absmax.cpu(), code.cpu())
            yield f"nest {n}", torch.equal(q8.cpu(), again[0]) and offset == again[2]
            for parts in ((packed, absmax, None), (packed, q8, (absmax2, code, offset))):
                for out_dtype in TOLERANCE:
                    out = torch.full((n,), float("nan"), device=device, dtype=out_dtype)
                    kernels.dequantise(*parts, out)
                    want = torch.empty(n, dtype=out_dtype)
                    reference.dequantise(*on_cpu(parts), want)
                    kind = "plain" if parts[2] is None else "nested"
                    yield f"dequantise {kind} {out_dtype} {n}", torch.equal(out.cpu(), want)


def on_cpu(parts: tuple) -> tuple:
    packed, absmax, nested = parts
    if nested is not None:
        nested = (nested[0].cpu(), nested[1].cpu(), nested[2])
    return packed.cpu(), absmax.cpu(), nested


def adapter(
    kernels: CudaLibrary, device: torch.device, generator: torch.Generator
) -> Iterator[tuple[str, bool]]:
    for dtype in HALVES:
        for n, width, groups, r in SHAPES:
            poison(device)
            x = random(generator, device, n, width, dtype=dtype)
            a = random(generator, device, groups * r, width, dtype=dtype)
            R = random(generator, device, groups, r, r, dtype=torch.float32)
            result = kernels.adapter_down(x, a, R, 0.5)
            name = f"{dtype} {n}x{width} {groups}x{r}"
            if result is None:
                yield f"adapter_down {name}: no kernel", False
                continue
            u, w = result
            yield f"adapter_down u {name}", relative(u, x.double() @ a.double().T) < TOLERANCE[dtype]
            pairs = zip(u.double().split(r, dim=1), R.to(dtype).double(), strict=True)
            exact = 0.5 * torch.cat([part @ square.T for part, square in pairs], dim=1)
            yield f"adapter_down w {name}", relative(w, exact) < TOLERANCE[dtype]
            if groups == 1:
                yield from backward(kernels, x, a, R[0], u, name)


def backward(
    kernels: CudaLibrary, g: Tensor, bt: Tensor, R: Tensor, u: Tensor, name: str
) -> Iterator[tuple[str, bool]]:
    poison(g.device)
    result = kernels.adapter_up_bwd(g, bt, R, u, 2.0)
    if result is None:
        yield f"adapter_up_bwd {name}: no kernel", False
        return
    v, z, grad = result
    tolerance = TOLERANCE[g.dtype]
    yield f"adapter_up_bwd v {name}", relative(v, g.double() @ bt.double().T) < tolerance
    yield f"adapter_up_bwd z {name}", relative(z, 2 * v.double() @ R.to(g.dtype).double()) < tolerance
    yield f"adapter_up_bwd gR {name}", relative(grad, 2 * v.double().T @ u.double()) < 1e-5
    again = kernels.adapter_up_bwd(g, bt, R, u, 2.0)
    yield f"adapter_up_bwd repeats {name}", again is not None and torch.equal(again[2], grad)


def private(
    kernels: CudaLibrary, device: torch.device, generator: torch.Generator
) -> Iterator[tuple[str, bool]]:
    for dtype in TOLERANCE:
        for r in (1, 33, 64):
            cuts = [0, 5, 5, 500, 900]
            u = random(generator, device, 900, r, dtype=dtype)
            v = random(generator, device, 900, r, dtype=dtype)
            norms = torch.full((4,), float("nan"), device=device)
            poison(device)
            segments = torch.tensor(cuts, device=device)
            gradients = kernels.per_sample_gradients(u, v, segments, 0.25, norms, add=False)
            pieces = [slice(a, b) for a, b in itertools.pairwise(cuts)]
            exact = torch.stack([0.25 * v[piece].double().T @ u[piece].double() for piece in pieces])
            yield f"per-sample gradients {dtype} {r}", relative(gradients, exact) < 1e-5
            squares = exact.flatten(1).square().sum(1)
            yield f"their norms {dtype} {r}", relative(norms, squares) < 1e-5
            clip = float(exact[2].norm()) / 2
            factors = (clip / exact.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1)
            total = kernels.clipped_sum(gradients, norms, clip)
            yield f"clipped sum {dtype} {r}", relative(total, (factors * exact).sum(0)) < 1e-5


def ternary(
    kernels: CudaLibrary, device: torch.device, generator: torch.Generator
) -> Iterator[tuple[str, bool]]:
    for n in (1, 31, 257, 100_003):
        t = torch.randint(-1, 2, (n,), generator=generator).to(device, torch.int8)
        planes = torch.full((2, (n + 7) // 8), 255, dtype=torch.uint8, device=device)
        kernels.ternary_pack(t, planes[0], planes[1])
        back = torch.full_like(t, 7)
        kernels.ternary_unpack(planes[0], planes[1], 0.0, back)
        yield f"ternary pack and unpack {n}", torch.equal(back, t)
        total = torch.zeros(n, device=device)
        kernels.ternary_add(planes[0], planes[1], 0.7, total)
        yield f"ternary add {n}", torch.equal(total, t * torch.tensor(0.7))
        whole = torch.zeros(n, dtype=torch.int64, device=device)
        weights = torch.tensor([2**40], device=device)
        kernels.ternary_accumulate(planes[:1], planes[1:], weights, whole)
        yield f"ternary accumulate {n}", torch.equal(whole, t.long() * 2**40)


CHECKS: tuple[Check, ...] = (nf4, adapter, private, ternary)


def run(kernels: CudaLibrary, device: torch.device, seed: int) -> list[str]:
    """Run all checks; return how many there were as the first line, then the names of those that failed."""
    generator = torch.Generator().manual_seed(seed)
    results = [outcome for check in CHECKS for outcome in check(kernels, device, generator)]
    return [f"{len(results)} checks", *(name for name, passed in results if not passed)]
