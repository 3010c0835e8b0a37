"""The CPU kernels and the NF4 layer beside bitsandbytes, dense bfloat16, numpy and a plain copy.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --only dequantise --rounds 15 --json kernels.json

Each pair is measured in turns, and the ratio of each turn counts: what disturbs the machine disturbs both. A
ratio is the median of the turns, with the quartiles. With one thread, times are CPU time; with more, wall
time, which means something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedft.quant import NF4, NF4Weight, QuantisedLinear, describe, ops, ternary, workspace
from fedft.quant.codebook import nested_map

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

Work = Callable[[], object]


@dataclass
class Row:
    """How many times faster ``fedft`` is than ``other``, and what was asked for."""

    name: str
    other: str
    ours_ms: float
    other_ms: float
    ratio: float
    quartiles: tuple[float, float]
    goal: float | None

    def line(self) -> str:
        asked = (
            ""
            if self.goal is None
            else f"goal {self.goal:.2f} {'met' if self.ratio >= self.goal else 'MISSED'}"
        )
        low, high = self.quartiles
        times = f"{self.ours_ms:9.3f} ms {self.other_ms:9.3f} ms"
        return f"{self.name:42} {self.other:22} {times} {self.ratio:7.2f} [{low:.2f}, {high:.2f}] {asked}"


def seconds(work: Work, least: float) -> float:
    """Seconds of one call, from enough calls to last ``least`` seconds."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start, calls = clock(), 0
    while True:
        work()
        calls += 1
        passed = clock() - start
        if passed >= least:
            return passed / calls


def compare(name: str, ours: Work, other_name: str, other: Work, goal: float | None, rounds: int) -> Row:
    ours(), other()
    turns = [(seconds(ours, 0.02), seconds(other, 0.02)) for _ in range(rounds)]
    low, middle, high = np.percentile([b / a for a, b in turns], [25, 50, 75])
    mine, theirs = np.median(turns, axis=0) * 1e3
    return Row(name, other_name, mine, theirs, float(middle), (float(low), float(high)), goal)


def quantise(rounds: int) -> Iterator[Row]:
    import bitsandbytes.functional as bnb

    w = torch.randn(4096, 4096)
    code = nested_map(w.device)

    def ours() -> None:
        _, absmax = ops.quantise(w)
        ops.nest(absmax, code)

    def theirs() -> None:
        bnb.quantize_4bit(w, quant_type="nf4", blocksize=64, compress_statistics=True)

    yield compare("quantise 4096x4096 float32", ours, "bitsandbytes", theirs, 50, min(rounds, 3))


def dequantise(rounds: int) -> Iterator[Row]:
    import bitsandbytes.functional as bnb

    for rows, columns, where, goal in ((512, 512, "in L2", 4.0), (2048, 2048, "8 MiB", None)):
        w = torch.randn(rows, columns).bfloat16()
        own = NF4Weight.quantise(w)
        out, source = torch.empty_like(w), torch.ones_like(w)
        packed, state = own.to_bitsandbytes()

        def ours(own: NF4Weight = own, out: Tensor = out) -> None:
            ops.dequantise_into(own.packed, own.absmax, own.nested, out)

        def theirs(packed: Tensor = packed, state: object = state) -> None:
            bnb.dequantize_4bit(packed, state)

        def copy(out: Tensor = out, source: Tensor = source) -> None:
            ctypes.memmove(out.data_ptr(), source.data_ptr(), out.nbytes)

        yield compare(f"dequantise to bfloat16, {where}", ours, "bitsandbytes", theirs, goal, rounds)
        yield compare(f"dequantise to bfloat16, {where}", ours, "memcpy of the output", copy, 0.8, rounds)
    w = torch.randn(4096, 4096).bfloat16()
    own = NF4Weight.quantise(w)
    packed, state = own.to_bitsandbytes()

    def into_workspace() -> None:
        ops.dequantise_into(own.packed, own.absmax, own.nested, workspace.take(own.shape, w.dtype, w.device))

    def fresh() -> None:
        bnb.dequantize_4bit(packed, state)

    yield compare("dequantise 4096x4096 to bfloat16", into_workspace, "bitsandbytes", fresh, None, rounds)


def both_ways(layer: nn.Module, x: Tensor, g: Tensor) -> Work:
    def step() -> None:
        x.grad = None
        layer(x).backward(g)

    return step


LENGTHS = (1, 16, 256, 512, 2048)


def layers(rounds: int) -> Iterator[Row]:
    import bitsandbytes as bnb

    for size, dtype, lengths in (
        (2048, torch.bfloat16, LENGTHS),
        (4096, torch.bfloat16, LENGTHS),
        (4096, torch.float32, (16, 256)),
    ):
        dense = nn.Linear(size, size, bias=False, dtype=dtype).requires_grad_(False)
        ours = QuantisedLinear.of(dense, NF4)
        theirs = bnb.nn.Linear4bit(size, size, bias=False, compute_dtype=dtype, quant_type="nf4")
        theirs.weight = bnb.nn.Params4bit(dense.weight.data.clone(), requires_grad=False, quant_type="nf4")
        theirs = theirs.to("cpu").train()
        kind = str(dtype).removeprefix("torch.")
        for tokens in lengths:
            x = torch.randn(tokens, size, dtype=dtype, requires_grad=True)
            g = torch.randn(tokens, size, dtype=dtype)

            name = f"layer {size}x{size} {kind}, {tokens} tokens"
            versus_dense = 1 / 1.10 if tokens >= 256 else None
            versus_bnb = 1.5 if size == 4096 and tokens <= 256 else None
            count = max(3, rounds // (1 + tokens // 512))
            step = both_ways(ours, x, g)
            yield compare(name, step, f"dense {kind}", both_ways(dense, x, g), versus_dense, count)
            yield compare(name, step, "bitsandbytes", both_ways(theirs, x, g), versus_bnb, count)


def bit_planes(rounds: int) -> Iterator[Row]:
    n = 1_000_000
    t = torch.randint(-1, 2, (n,), dtype=torch.int8)
    pos, neg = ternary.pack(t)
    p, m = pos.numpy(), neg.numpy()

    def with_numpy() -> np.ndarray:
        bits = [np.unpackbits(plane, count=n, bitorder="little") for plane in (p, m)]
        return bits[0].view(np.int8) - bits[1].view(np.int8)

    def pack_with_numpy() -> None:
        x = t.numpy()
        np.packbits(x > 0, bitorder="little")
        np.packbits(x < 0, bitorder="little")

    assert np.array_equal(with_numpy(), t.numpy())
    yield compare("ternary unpack, 1M", lambda: ternary.unpack(pos, neg, n), "numpy", with_numpy, 5, rounds)
    yield compare("ternary pack, 1M", lambda: ternary.pack(t), "numpy", pack_with_numpy, None, rounds)


PARTS = {"quantise": quantise, "dequantise": dequantise, "layers": layers, "ternary": bit_planes}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    parser.add_argument("--rounds", type=int, default=9, help="turns for each pair")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="write the rows to this file too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    facts = describe()
    print(f"{facts['CPU kernels']}; {facts['processor']}; torch {facts['torch']}")
    rows = []
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            for row in part(arguments.rounds):
                print(row.line(), flush=True)
                rows.append(row)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": facts, "rows": [asdict(row) for row in rows]}, file, indent=1)


if __name__ == "__main__":
    main()
