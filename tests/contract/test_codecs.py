"""What every codec must do, whatever it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedft.aggregation import ExactAccumulator
from fedft.aggregation.exact_sum import ExactSum
from fedft.codecs import (
    CodecContext,
    Domain,
    Manifest,
    Shard,
    codec_from_spec,
    codec_names,
    codec_versions,
    decode,
    decode_update,
    make_codec,
)
from fedft.codecs.rotation import padded_size
from fedft.errors import FedftError
from fedft.wire import Update, decode_reply, encode_reply
from tests.wire.samples import MODEL, ROUND

SEED = b"seed of the round"
NAMES = codec_names()
UNBIASED = {"dense", "rotated1", "rotated2", "int4", "int8"}
FLOATS = hnp.arrays(
    np.float32,
    st.integers(1, 70),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


def context(seed: int = 0) -> CodecContext:
    return CodecContext(seed=SEED, generator=np.random.default_rng(seed))


def gaussian(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 1e-3, shape).astype(np.float32) for name, shape in shapes.items()}


STATE = gaussian({"head": (5, 333), "layer.0": (100, 100), "layer.1": (1,), "layer.2": (64, 64)})
MANIFEST = Manifest.of(STATE)


def total(state: dict[str, np.ndarray]) -> np.ndarray:
    return Manifest.of(state).flatten(state).astype(np.float64)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(name: str) -> None:
    codec = make_codec(name)
    assert codec.name == name
    assert codec.spec.codec_id == codec.id
    assert codec_versions()[codec.id] == codec.version == codec.spec.version
    assert codec_from_spec(codec.spec).spec == codec.spec
    assert isinstance(codec.needs_state, bool)
    assert isinstance(codec.integer_grid, bool)


def test_ids_are_as_on_the_wire() -> None:
    """Ids are never reused: this list only ever grows."""
    assert {name: make_codec(name).id for name in NAMES} == {
        "ternary": 2,
        "rotated1": 3,
        "rotated2": 3,
        "int4": 4,
        "int8": 4,
        "dense": 1,
        "bf16": 1,
    }


@pytest.mark.parametrize("name", NAMES)
@given(vectors=st.lists(FLOATS, min_size=1, max_size=3), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_finite_update_survives_the_wire(
    name: str, vectors: list[np.ndarray], data: st.DataObject
) -> None:
    """Encode, send, decode: names, shapes and finite values come back, and an update of zeros is zeros."""
    state = {f"t{i}": vector for i, vector in enumerate(vectors)}
    manifest = Manifest.of(state)
    shards = make_codec(name).encode(state, manifest, context(data.draw(st.integers(0, 9))))
    update = decode_reply(encode_reply(Update(ROUND, MODEL, "c", 0, 1, tuple(shards))))
    assert isinstance(update, Update)
    assert list(update.shards) == shards
    decoded = decode(update.shards, manifest, context())
    manifest.check(decoded)
    assert all(np.isfinite(value).all() for value in decoded.values())
    if not any(vector.any() for vector in vectors):
        assert not any(value.any() for value in decoded.values())


@pytest.mark.parametrize("name", NAMES)
def test_size_is_as_stated(name: str) -> None:
    state = gaussian({"x": (1_000_000,)})
    codec = make_codec(name)
    shards = codec.encode(state, Manifest.of(state), context())
    bits = 8 * sum(shard.nbytes for shard in shards) / 1e6
    # Stated without scales and headers; Huffman coding makes block integers smaller than stated.
    assert 0.8 * codec.bits_per_parameter < bits < 1.02 * codec.bits_per_parameter


@pytest.mark.parametrize("name", NAMES)
def test_bias_is_as_documented(name: str) -> None:
    """The mean over many encodings comes near the input for unbiased codecs only."""
    state = gaussian({"x": (8192,)})
    manifest, codec, trials = Manifest.of(state), make_codec(name), 200
    mean = np.zeros(8192)
    single = []
    for trial in range(trials):
        ctx = CodecContext(seed=bytes([trial]), generator=np.random.default_rng(trial))
        decoded = total(decode(codec.encode(state, manifest, ctx), manifest, ctx))
        mean += decoded / trials
        single.append(np.linalg.norm(decoded - total(state)))
    error = np.linalg.norm(mean - total(state)) / np.mean(single) if np.mean(single) else 0.0
    if name in UNBIASED:
        assert error < 1.3 / np.sqrt(trials)
    else:
        assert error > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_relative_error_is_near_what_theory_and_measurements_say(name: str) -> None:
    """Gaussian input, relative L2 error; the bounds are the published or measured figures, two-sided."""
    state = gaussian({"x": (1 << 18,)})
    decoded = decode(
        make_codec(name).encode(state, Manifest.of(state), context()), Manifest.of(state), context()
    )
    error = np.linalg.norm(total(decoded) - total(state)) / np.linalg.norm(total(state))
    # DRIVE: sqrt(pi/2 - 1); EDEN with Lloyd-Max levels of distortion 0.1175: sqrt(1/0.8825 - 1).
    expected = {
        "ternary": 0.757,
        "rotated1": np.sqrt(np.pi / 2 - 1),
        "rotated2": np.sqrt(1 / 0.8825 - 1),
        "int4": 0.191,
        "int8": 0.0105,
        "dense": 0.0,
        "bf16": 0.0017,
    }[name]
    assert error == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_decoding_and_summing_agree(name: str) -> None:
    """The mean of one update is what decoding gives, up to the sum's grid and float32."""
    shards = make_codec(name).encode(STATE, MANIFEST, context())
    accumulator = ExactAccumulator(MANIFEST, seed=SEED)
    accumulator.add_decoded(decode_update(shards, MANIFEST, context()), 3)
    for key, value in decode(shards, MANIFEST, context()).items():
        np.testing.assert_allclose(accumulator.mean()[key], value, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_norm_and_peak_come_from_the_coded_form(name: str) -> None:
    shards = make_codec(name).encode(STATE, MANIFEST, context())
    decoded = decode_update(shards, MANIFEST, context())

    class Recorder:
        peak, squares = 0.0, 0.0

        def add_dense(self, start: int, values: np.ndarray) -> None:
            self.peak = max(self.peak, float(np.abs(values).max()))
            self.squares += float(np.square(values, dtype=np.float64).sum())

        def add_sparse(self, indices: np.ndarray, values: np.ndarray) -> None:
            assert (np.diff(indices) > 0).all()
            self.add_dense(0, values)

    recorder = Recorder()
    for shard in decoded.shards:
        shard.add_into(recorder)
    assert decoded.peak == pytest.approx(recorder.peak, rel=1e-12)
    assert decoded.peak >= recorder.peak, "the accumulator chooses its path by this bound"
    assert decoded.norm == pytest.approx(np.sqrt(recorder.squares), rel=1e-9)
    plain = np.linalg.norm(total(decode(shards, MANIFEST, context())))
    # Rotation of a padded vector may put some of the norm outside the tensors, never more inside.
    assert plain <= decoded.norm * (1 + 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_sums_are_integers_on_the_stated_grid(name: str) -> None:
    codec = make_codec(name)
    shard = decode_update(codec.encode(STATE, MANIFEST, context()), MANIFEST, context()).shards[0]
    rotated = shard.domain is Domain.ROTATED
    integers = ExactSum(padded_size(MANIFEST.total_elements) if rotated else MANIFEST.total_elements, 48)
    shard.add_into(integers.contribution(1, shard.peak))
    distinct = len(set(map(abs, integers.to_integers())))
    limit = {"ternary": 5, "rotated1": 4, "rotated2": 8, "int4": 8 * 31, "int8": 128 * 31}
    assert codec.integer_grid == (name in limit)
    if codec.integer_grid:
        assert distinct <= limit[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_one_codec_does_not_change_a_bit(name: str) -> None:
    check_order([name] * 12)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_a_mixture_does_not_change_a_bit(seed: int) -> None:
    check_order(list(np.random.default_rng(seed).permutation(NAMES * 2)))


def check_order(names: list[str]) -> None:
    shapes = {"a": (30, 30), "b": (70, 70)}
    manifest = Manifest.of(gaussian(shapes))
    updates = []
    for i, name in enumerate(names):
        scale = np.float32(10.0 ** (i % 5 - 2))
        state = {key: value * scale for key, value in gaussian(shapes, i).items()}
        shards = make_codec(name).encode(state, manifest, context(i))
        updates.append((decode_update(shards, manifest, context()), 1 + 37 * i))
    results = set()
    rng = np.random.default_rng(1)
    for _ in range(20):
        total = ExactAccumulator(manifest, seed=SEED)
        for i in rng.permutation(len(updates)):
            total.add_decoded(*updates[i])
        mean = b"".join(value.tobytes() for value in total.mean().values())
        results.add((total.digest(), mean))
    assert len(results) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_encoded(name: str, bad: float) -> None:
    state = {key: value.copy() for key, value in STATE.items()}
    state["layer.2"][3, 3] = bad
    with pytest.raises(FedftError, match=r"FEDFT-4016 layer\.2"):
        make_codec(name).encode(state, MANIFEST, context())


@pytest.mark.parametrize("name", NAMES)
def test_another_state_than_the_manifest_is_not_encoded(name: str) -> None:
    with pytest.raises(FedftError, match="FEDFT-4015"):
        make_codec(name).encode({**STATE, "extra": np.ones(1, np.float32)}, MANIFEST, context())


@pytest.mark.parametrize("name", NAMES)
def test_wrong_lengths_and_scales_are_refused(name: str) -> None:
    (shard,) = make_codec(name).encode(STATE, MANIFEST, context())
    bad_scales = [shard.scales + bytes(4), shard.scales[:-4], shard.scales[:-1]]
    for value in (np.nan, np.inf, -1.0, -np.inf, 1e-40):
        bad_scales.append(np.float32(value).tobytes() + shard.scales[4:])
    for scales in bad_scales:
        if len(scales) or shard.scales:
            assert_refused(dataclasses.replace(shard, scales=scales))
    for blob in (b"", shard.blob[:-1], shard.blob + b"\0", shard.blob[:7], shard.blob[1:]):
        assert_refused(dataclasses.replace(shard, blob=blob))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("first", "count"), [(1, 4), (0, 3), (0, 5), (1, 3), (0, 0), (2**31, 4)])
def test_shards_of_other_tensors_are_refused(name: str, first: int, count: int) -> None:
    (shard,) = make_codec(name).encode(STATE, MANIFEST, context())
    assert_refused(dataclasses.replace(shard, first_tensor=first, tensor_count=count))


def assert_refused(shard: Shard) -> None:
    with pytest.raises(FedftError, match=r"FEDFT-401[234]"):
        decode_update([shard], MANIFEST, context())


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("rotated")])
def test_an_update_may_come_in_several_shards_of_several_codecs(name: str) -> None:
    first, rest = {"a": STATE["head"]}, {"b": STATE["layer.0"], "c": STATE["layer.2"]}
    manifest = Manifest.of(first | rest)
    (one,) = make_codec("dense").encode(first, Manifest.of(first), context())
    (two,) = make_codec(name).encode(rest, Manifest.of(rest), context())
    shards = [one, dataclasses.replace(two, first_tensor=1)]
    alone = decode([two], Manifest.of(rest), context())
    both = decode(shards, manifest, context())
    assert np.array_equal(both["a"], first["a"])
    assert all(np.array_equal(both[key], alone[key]) for key in rest)
    accumulator = ExactAccumulator(manifest)
    accumulator.add_decoded(decode_update(shards, manifest, context()), 1)
    assert np.array_equal(accumulator.mean()["b"], alone["b"])


@pytest.mark.parametrize("name", NAMES)
def test_encoding_leaves_the_global_randomness_and_the_input_alone(name: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    copies = {key: value.copy() for key, value in STATE.items()}
    one = make_codec(name).encode(STATE, MANIFEST, context(5))
    two = make_codec(name).encode(STATE, MANIFEST, context(5))
    assert one == two
    assert (np.random.get_state(legacy=False)["state"]["key"] == before).all()
    assert all(np.array_equal(copies[key], STATE[key]) for key in STATE)
