"""What only a GPU can show: other streams, graph capture, and the layer as it is used."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from checks.correctness import TOLERANCE, relative
from fedft.adapters import attach, build_frames
from fedft.quant import NF4, NF4Weight, QuantisedLinear


def layer(device: torch.device) -> Iterator[tuple[str, bool]]:
    """The adapted NF4 layer against float64 on the same weight, and evaluation between training steps."""
    for dtype in TOLERANCE:
        for rows, columns in ((256, 384), (176, 80)):
            model = nn.Sequential(nn.Linear(columns, rows, bias=False, dtype=dtype, device=device))
            model[0] = QuantisedLinear.of(model[0], NF4)
            dense = model[0].stored.dequantise(torch.float64)
            handle = attach(model, build_frames(model, ["0"], initialiser="random", rank=16))
            (R,) = handle.trainable_parameters()
            R.data.normal_(std=0.1)
            x = torch.randn(4, 33, columns, dtype=dtype, device=device, requires_grad=True)
            g = torch.randn(4, 33, rows, dtype=dtype, device=device)
            y = model(x)
            y.backward(g)
            frame = handle.frames["0"]
            a, b = frame.a.to(device).double(), frame.b.to(device).double()
            whole = dense + frame.scale * b @ R.detach().double() @ a
            name, limit = f"layer {dtype} {rows}x{columns}", 2 * TOLERANCE[dtype]
            yield f"{name} forward", relative(y.detach(), x.detach().double() @ whole.T) < limit
            yield f"{name} backward", relative(x.grad, g.double() @ whole) < limit
            flat_g, flat_x = g.double().flatten(0, 1), x.detach().double().flatten(0, 1)
            exact = frame.scale * (flat_g @ b).T @ (flat_x @ a.T)
            yield f"{name} gradient of R", relative(R.grad, exact) < limit
            with torch.no_grad():
                evaluated = model.eval()(x)
            yield f"{name} evaluation", torch.equal(evaluated, y) and torch.equal(model.train()(x), y)


def streams(device: torch.device) -> Iterator[tuple[str, bool]]:
    """Two streams at once, each with its own workspace."""
    weights = [NF4Weight.quantise(torch.randn(1024, 1024, device=device)) for _ in range(2)]
    x = torch.randn(512, 1024, device=device, dtype=torch.bfloat16)
    expected = [weight.matmul(x, transposed=True) for weight in weights]
    torch.cuda.synchronize()
    lanes = [torch.cuda.Stream() for _ in weights]
    results: list[list[torch.Tensor]] = [[], []]
    for _ in range(50):
        for index, lane in enumerate(lanes):
            with torch.cuda.stream(lane):
                results[index].append(weights[index].matmul(x, transposed=True))
    torch.cuda.synchronize()
    for index, result in enumerate(results):
        yield f"stream {index}", all(torch.equal(each, expected[index]) for each in result)


def graph(device: torch.device) -> Iterator[tuple[str, bool]]:
    """A captured layer gives what the layer gives, for new inputs."""
    weight = NF4Weight.quantise(torch.randn(512, 512, device=device))
    x = torch.randn(64, 512, device=device, dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            weight.matmul(x, transposed=True)
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        y = weight.matmul(x, transposed=True)
    for _ in range(3):
        x.normal_()
        captured.replay()
        yield "graph", torch.equal(y, weight.matmul(x, transposed=True))


def run(device: torch.device) -> list[str]:
    """Run all checks; the number of them, then the names of those that failed."""
    results = [outcome for check in (layer, streams, graph) for outcome in check(device)]
    return [f"{len(results)} checks", *(name for name, passed in results if not passed)]
