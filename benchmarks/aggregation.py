"""Exact aggregation: time beside a plain mean of resident arrays, and memory that does not grow with clients.

python benchmarks/aggregation.py
python benchmarks/aggregation.py --clients 100 --parameters 1000000 --memory-clients 10 1000
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc

import numpy as np

from fedft.aggregation import ExactAccumulator
from fedft.codecs import CodecContext, Manifest, Shard, decode_update, make_codec


def make_state(parameters: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"R": rng.normal(0, 1e-3, parameters).astype(np.float32)}


def aggregate(manifest: Manifest, sources: list[list[Shard]], clients: int) -> ExactAccumulator:
    """Decode and add as the server does: an update is dropped before the next one comes."""
    accumulator = ExactAccumulator(manifest, seed=b"round")
    for i in range(clients):
        # A copy stands for the bytes that arrive; the few sources stand for many clients.
        shards = [
            Shard(s.first_tensor, s.tensor_count, s.codec, bytes(bytearray(s.blob)), s.scales)
            for s in sources[i % len(sources)]
        ]
        accumulator.add_decoded(decode_update(shards, manifest, CodecContext(seed=b"round")), i % 1000 + 1)
    accumulator.mean()
    return accumulator


def peak_mebibytes(manifest: Manifest, sources: list[list[Shard]], clients: int) -> float:
    tracemalloc.start()
    aggregate(manifest, sources, clients)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def seconds(work, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--parameters", type=int, default=200_000)
    parser.add_argument("--memory-clients", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--codecs", nargs="+", default=["dense"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    states = [make_state(args.parameters, seed) for seed in range(args.clients)]
    manifest = Manifest.of(states[0])
    resident = [state["R"] for state in states]
    weights = np.arange(1, args.clients + 1) / sum(range(1, args.clients + 1))

    def plain_mean() -> np.ndarray:
        return np.mean(resident, axis=0)

    def weighted_sum() -> np.ndarray:
        total = np.zeros(args.parameters, dtype=np.float32)
        for weight, values in zip(weights, resident, strict=True):
            total += np.float32(weight) * values
        return total

    def exact_arrays() -> None:
        accumulator = ExactAccumulator(manifest)
        for i, state in enumerate(states):
            accumulator.add(state, i + 1)
        accumulator.mean()

    baseline = seconds(plain_mean, args.repeats)
    result = {
        "clients": args.clients,
        "parameters": args.parameters,
        "numpy_mean_s": baseline,
        "float32_weighted_sum_s": seconds(weighted_sum, args.repeats),
        "exact_resident_s": seconds(exact_arrays, args.repeats),
        "codecs": {},
    }
    for name in args.codecs:
        context = CodecContext(seed=b"round", generator=np.random.default_rng(0))
        sources = [make_codec(name).encode(state, manifest, context) for state in states[:8]]
        spent = seconds(lambda sources=sources: aggregate(manifest, sources, args.clients), args.repeats)
        result["codecs"][name] = {
            "decode_and_sum_s": spent,
            "ratio_to_numpy_mean": spent / baseline,
            "peak_mib": {n: peak_mebibytes(manifest, sources, n) for n in args.memory_clients},
        }
    result["exact_ratio_to_numpy_mean"] = result["exact_resident_s"] / baseline
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
