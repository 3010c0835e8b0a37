from __future__ import annotations

import dataclasses
import struct

import numpy as np
import pytest

from fedft.codecs import Codec, CodecContext, Manifest, decode, decode_update, make_codec
from fedft.codecs.entropy import huffman
from fedft.codecs.spec import CodecSpec, TernaryParams
from fedft.errors import FedftError

RNG = np.random.default_rng(0)
STATE = {
    "a": RNG.normal(0, 1.0, (40, 50)).astype(np.float32),
    "b": RNG.normal(0, 0.5, (30, 100)).astype(np.float32),
    "quiet": np.full((4,), 1e-4, np.float32),
}
MANIFEST = Manifest.of(STATE)


def coded(codec: Codec) -> dict[str, np.ndarray]:
    return decode(codec.encode(STATE, MANIFEST, CodecContext()), MANIFEST, CodecContext())


def entropy_bytes(size: int, kept: int) -> float:
    p = kept / size
    return float(size * (-p * np.log2(p) - (1 - p) * np.log2(1 - p) + p) / 8)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 1.0])
def test_keeps_the_largest_of_the_whole_update_with_their_signs(density: float) -> None:
    decoded = coded(make_codec("ternary", density=density))
    flat, out = MANIFEST.flatten(STATE), MANIFEST.flatten(decoded)
    count = int(flat.size * round(density * 1e6) // 10**6)
    kept = np.argsort(-np.abs(flat), kind="stable")[:count]
    expected = np.zeros_like(flat)
    expected[kept] = np.sign(flat[kept])
    assert np.array_equal(np.sign(out), expected)


def test_least_squares_factor_is_the_minimum_of_the_error() -> None:
    decoded = coded(make_codec("ternary", density=0.1))
    for name in ("a", "b"):
        kept = decoded[name] != 0
        scale = np.abs(decoded[name][kept]).max()
        assert scale == np.float32(np.mean(np.abs(STATE[name][kept].astype(np.float64))))
        errors = [
            np.linalg.norm(STATE[name] - factor * decoded[name].astype(np.float64))
            for factor in (0.999, 1.0, 1.001)
        ]
        assert np.argmin(errors) == 1
    assert not decoded["quiet"].any()


def test_compeft_rule_is_its_formula() -> None:
    """sign(τ)·α·std(τ) over the dense update, one factor for all tensors (arXiv 2311.13171, algorithm 1)."""
    decoded = coded(make_codec("ternary", density=0.2, rule="compeft", alpha=1.5))
    expected = np.float32(1.5 * np.std(MANIFEST.flatten(STATE).astype(np.float64)))
    for name in ("a", "b"):
        assert set(np.abs(decoded[name]).reshape(-1).tolist()) == {0.0, float(expected)}


@pytest.mark.parametrize("density", [0.05, 0.1, 0.2, 0.5])
def test_within_one_percent_of_the_entropy_bound(density: float) -> None:
    state = {"R": np.random.default_rng(1).normal(size=1_000_000).astype(np.float32)}
    (shard,) = make_codec("ternary", density=density).encode(state, Manifest.of(state), CodecContext())
    assert shard.nbytes <= 1.01 * entropy_bytes(1_000_000, int(1e6 * density))


def test_error_feedback_refuses_a_factor_of_twice_the_mean() -> None:
    context = CodecContext(error_feedback=True)
    state = {"a": RNG.normal(size=10_000).astype(np.float32)}
    manifest = Manifest.of(state)
    # At 20 % of a Gaussian the mean of the kept is 1.755 deviations, so 3.51 is the limit.
    assert make_codec("ternary", density=0.2, rule="compeft", alpha=3.4).encode(state, manifest, context)
    codec = make_codec("ternary", density=0.2, rule="compeft", alpha=3.6)
    with pytest.raises(FedftError, match="FEDFT-4018 a "):
        codec.encode(state, manifest, context)
    assert codec.encode(state, manifest, CodecContext())


@pytest.mark.parametrize(
    "options",
    [{"density": 0}, {"density": 1.1}, {"density": float("nan")}, {"rule": "mean"}, {"alpha": -1.0}],
)
def test_bad_options_are_refused(options: dict[str, float | str]) -> None:
    with pytest.raises(FedftError, match="FEDFT-4011"):
        make_codec("ternary", **options)


@pytest.mark.parametrize(
    "params",
    [
        TernaryParams(0, "least_squares"),
        TernaryParams(1_000_001, "least_squares"),
        TernaryParams(2**32 - 1, "least_squares"),
        TernaryParams(100_000, "least_squares", 2.0),
        TernaryParams(100_000, "compeft", 0.0),
        TernaryParams(100_000, "compeft", float("nan")),
        TernaryParams(100_000, "compeft", float("inf")),
    ],
)
def test_bad_parameters_from_the_wire_are_refused(params: TernaryParams) -> None:
    (shard,) = make_codec("ternary", density=0.1).encode(STATE, MANIFEST, CodecContext())
    with pytest.raises(FedftError, match="FEDFT-4011"):
        decode_update([dataclasses.replace(shard, codec=CodecSpec(2, 1, params))], MANIFEST, CodecContext())


def blob(count: int, symbols: bytes, signs: bytes, stated: int | None = None) -> bytes:
    return struct.pack("<II", count, len(symbols) if stated is None else stated) + huffman(symbols) + signs


@pytest.mark.parametrize(
    "bad",
    [
        blob(505, bytes(505), bytes(64)),  # more than the density allows (5004 elements at 10 %)
        blob(4, bytes(4), b"\x10"),  # sign padding
        blob(4, bytes(4), b""),
        blob(4, bytes(4), b"\0", stated=5),
        blob(4, bytes(4), b"\0", stated=2**32 - 1),
        blob(2**32 - 1, bytes(4), b"\0"),
        blob(4, bytes(3), b"\0"),
        blob(1, bytes([255] * 20), b"\0"),  # an escape at the end, more symbols than fit
        blob(2, bytes([255] * 19 + [254, 254]), b"\0"),  # past the end
        struct.pack("<I", 4),
    ],
)
def test_malformed_blobs_are_refused(bad: bytes) -> None:
    (shard,) = make_codec("ternary", density=0.1).encode(STATE, MANIFEST, CodecContext())
    with pytest.raises(FedftError, match="FEDFT-4013"):
        decode_update([dataclasses.replace(shard, blob=bad)], MANIFEST, CodecContext())


def test_a_scale_for_a_tensor_without_entries_is_refused() -> None:
    (shard,) = make_codec("ternary", density=0.1).encode(STATE, MANIFEST, CodecContext())
    scales = np.frombuffer(shard.scales, dtype="<f4").copy()
    assert scales[2] == 0
    scales[2] = 1.0
    with pytest.raises(FedftError, match="FEDFT-4014"):
        decode_update([dataclasses.replace(shard, scales=scales.tobytes())], MANIFEST, CodecContext())


def test_an_update_of_nothing_is_a_few_bytes() -> None:
    state = {"R": np.zeros(1_000_000, np.float32)}
    (shard,) = make_codec("ternary", density=0.1).encode(state, Manifest.of(state), CodecContext())
    assert shard.nbytes < 30
