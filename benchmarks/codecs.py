"""Size, error and speed of the codecs, beside the entropy bound and zstd-1 on the same gap bytes.

    python benchmarks/codecs.py
    python benchmarks/codecs.py --sizes 1000000 10000000 --densities 0.05 0.1 0.2 0.5 --repeats 15

Rates are MB of float32 input per second of CPU time, one thread, medians. The update is i.i.d. Gaussian.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from fedft.aggregation import ExactAccumulator
from fedft.codecs import CodecContext, Manifest, Shard, codec_names, decode, decode_update, make_codec
from fedft.codecs.entropy import gap_bytes, huffman
from fedft.codecs.error_feedback import ErrorFeedback, ResidualIdentity
from fedft.codecs.selection import largest
from fedft.wire import ModelRef, RoundRef, Update, encode_reply, seal

SEED = b"round seed"
MODEL_RANKS = {"224 matrices, rank 64": (224, 64), "224 matrices, rank 200": (224, 200)}


def make_update(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"R": np.random.default_rng(seed).normal(0, 1e-3, size).astype(np.float32)}


def context() -> CodecContext:
    return CodecContext(seed=SEED, generator=np.random.default_rng(0))


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def wire_bytes(shards: list[Shard], manifest: Manifest) -> int:
    """Everything that travels: shards, references, digests, metrics, hash and the place of the message."""
    digest = "ab" * 32
    model = ModelRef(digest, digest, manifest.digest(), digest)
    metrics = {"loss": 1.0, "examples": 1.0}
    return len(
        seal(encode_reply(Update(RoundRef("run-1", 1), model, digest, 1, 1000, tuple(shards), metrics)))
    )


def entropy_bound_bytes(size: int, kept: int) -> float:
    p = kept / size
    rest = (1 - p) * np.log2(1 - p) if p < 1 else 0.0
    return size * (-p * np.log2(p) - rest + p) / 8


def ternary_row(size: int, density: float, repeats: int) -> dict[str, float]:
    state, codec = make_update(size), make_codec("ternary", density=density)
    manifest = Manifest.of(state)
    feedback = ErrorFeedback(ResidualIdentity("run", "", manifest.digest()), manifest)

    def client_step() -> None:
        feedback.prepare(state, codec, context(), round=0, update_seq=0)
        feedback.discard()

    shards = codec.encode(state, manifest, context())
    accumulator = ExactAccumulator(manifest)

    def server_step() -> None:
        accumulator.add_decoded(decode_update(shards, manifest, context()), 100)

    positions = largest(state["R"], int(size * density))
    symbols = gap_bytes(positions).tobytes()
    signs = (positions.size + 7) // 8
    zstd = pa.Codec("zstd", compression_level=1)
    bound = entropy_bound_bytes(size, positions.size)
    megabytes = 4 * size / 1e6
    return {
        "bits_per_parameter": 8 * wire_bytes(shards, manifest) / size,
        "shard_over_bound_percent": 100 * (sum(s.nbytes for s in shards) / bound - 1),
        "envelope_over_bound_percent": 100 * (wire_bytes(shards, manifest) / bound - 1),
        "zstd1_over_bound_percent": 100
        * ((zstd.compress(symbols, asbytes=True).__len__() + signs) / bound - 1),
        "client_step_mb_s": megabytes / median_seconds(client_step, repeats),
        "decode_accumulate_mb_s": megabytes / median_seconds(server_step, repeats),
        "huffman_symbols_mb_s": megabytes / median_seconds(lambda: huffman(symbols), repeats),
        "zstd1_symbols_mb_s": megabytes / median_seconds(lambda: zstd.compress(symbols), repeats),
    }


def codec_row(name: str, size: int, repeats: int) -> dict[str, float]:
    state, codec = make_update(size), make_codec(name)
    manifest = Manifest.of(state)
    shards = codec.encode(state, manifest, context())
    accumulator = ExactAccumulator(manifest, seed=SEED)
    error = np.linalg.norm(decode(shards, manifest, context())["R"] - state["R"]) / np.linalg.norm(state["R"])
    megabytes = 4 * size / 1e6
    return {
        "bits_per_parameter": 8 * wire_bytes(shards, manifest) / size,
        "relative_error": float(error),
        "encode_mb_s": megabytes / median_seconds(lambda: codec.encode(state, manifest, context()), repeats),
        "decode_accumulate_mb_s": megabytes
        / median_seconds(
            lambda: accumulator.add_decoded(decode_update(shards, manifest, context()), 100), repeats
        ),
    }


def model_sizes(density: float) -> dict[str, dict[str, float]]:
    rows = {}
    for title, (matrices, rank) in MODEL_RANKS.items():
        rng = np.random.default_rng(0)
        state = {
            f"model.layers.{i // 7}.module{i % 7}.R": rng.normal(0, 1e-3, (rank, rank)).astype(np.float32)
            for i in range(matrices)
        }
        manifest = Manifest.of(state)
        size = wire_bytes(make_codec("ternary", density=density).encode(state, manifest, context()), manifest)
        rows[title] = {"wire_bytes": size, "ratio_to_float32": 4 * manifest.total_elements / size}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.5])
    parser.add_argument("--codecs", nargs="+", default=list(codec_names()))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    print(
        json.dumps(
            {
                "ternary": {
                    f"n={size} density={density}": ternary_row(size, density, args.repeats)
                    for size in args.sizes
                    for density in args.densities
                },
                "codecs": {
                    f"n={size} {name}": codec_row(name, size, args.repeats)
                    for size in args.sizes
                    for name in args.codecs
                },
                "models at density 0.1": model_sizes(0.1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
