"""Bandwidth of the kernels beside a copy, and the layer beside dense bfloat16 and bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fedft.quant import NF4, NF4Weight, QuantisedLinear, ops
from fedft.quant.cuda_library import CudaLibrary

Row = tuple[str, str, str]
"""What, measured, goal."""


def milliseconds(work: Callable[[int], object], repeats: int = 50) -> float:
    """Median time of one call on the device; ``work`` gets the number of the call."""
    for i in range(10):
        work(i)
    torch.cuda.synchronize()
    times = []
    for i in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work(i)
        end.record()
        times.append((start, end))
    torch.cuda.synchronize()
    return float(torch.tensor([a.elapsed_time(b) for a, b in times]).median())


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written in a second by a copy of 1 GiB."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda i: target.copy_(source), 20) * 1e3


def dequantisation(device: torch.device, copy: float, size: int = 4096) -> Iterator[Row]:
    # More weights than the last-level cache holds, taken in turn.
    weights = [NF4Weight.quantise(torch.randn(size, size, device=device)) for _ in range(16)]
    outs = [torch.empty(size, size, dtype=torch.bfloat16, device=device) for _ in weights]

    def work(i: int) -> None:
        weight = weights[i % len(weights)]
        ops.dequantise_into(weight.packed, weight.absmax, weight.nested, outs[i % len(weights)])

    time = milliseconds(work)
    rate = (weights[0].nbytes + outs[0].nbytes) / time * 1e3
    yield f"dequantise {size}x{size} to bfloat16", f"{time * 1e3:.1f} us, {rate / copy:.0%} of copy", "85%"


def adapter(
    kernels: CudaLibrary,
    device: torch.device,
    copy: float,
    shapes: tuple[tuple[int, int, int], ...] = ((2048, 64, 1), (8192, 64, 1), (8192, 64, 3), (16384, 64, 1)),
    size: int = 4096,
) -> Iterator[Row]:
    for n, r, groups in shapes:
        inputs = [torch.randn(n, size, device=device).bfloat16() for _ in range(4)]
        a = torch.randn(groups * r, size, device=device).bfloat16()
        R = torch.randn(groups, r, r, device=device)
        u = torch.randn(n, r, device=device).bfloat16()
        moved = inputs[0].nbytes + a.nbytes + 2 * n * groups * r * 2
        goal = "75%" if n >= 8192 else ""
        time = milliseconds(down_of(kernels, inputs, a, R))
        plain = milliseconds(plain_of(inputs, a))
        share = moved / time * 1e3 / copy
        told = f"{time * 1e3:.1f} us, {share:.0%} of copy; x A.T alone by torch {plain * 1e3:.1f} us"
        yield f"adapter_down {n}x{size}, r={r}, {groups} in a group", told, goal
        if groups == 1:
            time = milliseconds(up_of(kernels, inputs, a, R[0], u))
            share = (moved + u.nbytes) / time * 1e3 / copy
            yield f"adapter_up_bwd {n}x{size}, r={r}", f"{time * 1e3:.1f} us, {share:.0%} of copy", goal


def down_of(kernels: CudaLibrary, inputs: list[Tensor], a: Tensor, R: Tensor) -> Callable[[int], object]:
    return lambda i: kernels.adapter_down(inputs[i % len(inputs)], a, R, 1.0)


def plain_of(inputs: list[Tensor], a: Tensor) -> Callable[[int], object]:
    return lambda i: inputs[i % len(inputs)] @ a.T


def up_of(
    kernels: CudaLibrary, inputs: list[Tensor], bt: Tensor, R: Tensor, u: Tensor
) -> Callable[[int], object]:
    return lambda i: kernels.adapter_up_bwd(inputs[i % len(inputs)], bt, R, u, 1.0)


def both_ways(layer: nn.Module, x: Tensor, g: Tensor) -> Callable[[int], object]:
    def step(_: int) -> None:
        x.grad = None
        layer(x).backward(g)

    return step


def layers(
    device: torch.device, sizes: tuple[int, ...] = (2048, 4096), lengths: tuple[int, ...] = (512, 2048, 8192)
) -> Iterator[Row]:
    for size in sizes:
        dense = nn.Linear(size, size, bias=False, dtype=torch.bfloat16, device=device).requires_grad_(False)
        ours = QuantisedLinear.of(dense, NF4)
        theirs = bitsandbytes_layer(dense)
        for tokens in lengths:
            x = torch.randn(tokens, size, device=device).bfloat16().requires_grad_()
            g = torch.randn(tokens, size, device=device).bfloat16()
            times = [milliseconds(both_ways(layer, x, g)) for layer in (ours, dense)]
            told = f"{times[0] * 1e3:.0f} us, {times[0] / times[1]:.2f}x dense bfloat16"
            if theirs is not None:
                told += f", {times[0] / milliseconds(both_ways(theirs, x, g)):.2f}x bitsandbytes"
            yield f"layer {size}x{size}, {tokens} tokens", told, "1.20x dense" if tokens >= 2048 else ""


def bitsandbytes_layer(dense: nn.Linear) -> nn.Module | None:
    try:
        import bitsandbytes as bnb
    except ImportError:
        return None
    shape = (dense.in_features, dense.out_features)
    layer = bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(dense.weight.data.cpu(), requires_grad=False, quant_type="nf4")
    return layer.to(dense.weight.device).train()
