from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.codecs import CodecContext, Manifest, decode, decode_update, make_codec
from fedft.codecs.block_int import BlockInt, _from_nibbles, _to_nibbles
from fedft.errors import FedftError


def context(seed: int = 0) -> CodecContext:
    return CodecContext(generator=np.random.default_rng(seed))


@given(st.lists(st.integers(-7, 7), min_size=1, max_size=30))
def test_nibbles_round_trip(codes: list[int]) -> None:
    array = np.array(codes, dtype=np.int8)
    assert np.array_equal(_from_nibbles(_to_nibbles(array), array.size), array)


@pytest.mark.parametrize("bits", [4, 8])
def test_each_value_is_one_of_the_two_neighbouring_levels(bits: int) -> None:
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    state = {"x": values}
    manifest = Manifest.of(state)
    codec = BlockInt(bits, 500)
    decoded = decode(codec.encode(state, manifest, context()), manifest, context())["x"]
    step = np.abs(values.reshape(-1, 500)).max(axis=1).repeat(500) / (2 ** (bits - 1) - 1)
    assert (np.abs(decoded - values) <= step * (1 + 1e-6)).all()


def test_the_largest_value_is_never_above_the_largest_code() -> None:
    """Where x/s rounds up, the code would be 128; one step up in the scale keeps it at 127."""
    rng = np.random.default_rng(0)
    for seed in range(300):
        values = (rng.normal(size=16) * 10.0 ** rng.uniform(-30, 30)).astype(np.float32)
        state = {"x": values}
        manifest = Manifest.of(state)
        decoded = decode(BlockInt(8, 16).encode(state, manifest, context(seed)), manifest, context())["x"]
        error = np.linalg.norm((decoded - values).astype(np.float64))
        assert error <= 0.05 * np.linalg.norm(values.astype(np.float64))


@pytest.mark.parametrize("name", ["int4", "int8"])
def test_entropy_coding_is_used_only_where_it_pays(name: str) -> None:
    rng = np.random.default_rng(0)
    peaked, flat = rng.standard_t(2, 100_000), rng.uniform(-1, 1, 100_000)
    first_bytes = []
    for values in (peaked, flat):
        state = {"x": values.astype(np.float32)}
        manifest = Manifest.of(state)
        (shard,) = make_codec(name).encode(state, manifest, context())
        first_bytes.append(shard.blob[0])
        assert len(shard.blob) <= 1 + 100_000 * int(name[3]) // 8
    assert first_bytes[0] == 1


@pytest.mark.parametrize("name", ["int4", "int8"])
def test_codes_outside_the_range_are_refused(name: str) -> None:
    state = {"x": np.ones(31, np.float32)}
    manifest = Manifest.of(state)
    (shard,) = make_codec(name).encode(state, manifest, context())
    size = 31 if name == "int8" else 16
    lowest = b"\x80" if name == "int8" else b"\x00"
    for blob in (b"\x00" + lowest * size, b"\x02" + bytes(size), b"\x00" + bytes(size + 1), b"\x01", b"\x00"):
        with pytest.raises(FedftError, match="FEDFT-4013"):
            decode_update([dataclasses.replace(shard, blob=blob)], manifest, context())


def test_padding_of_an_odd_nibble_must_be_zero() -> None:
    state = {"x": np.ones(3, np.float32)}
    manifest = Manifest.of(state)
    (shard,) = make_codec("int4").encode(state, manifest, context())
    with pytest.raises(FedftError, match="FEDFT-4013"):
        decode_update([dataclasses.replace(shard, blob=b"\x00\x88\x98")], manifest, context())


@pytest.mark.parametrize("options", [{"block": 15}, {"block": 1 << 17}, {"block": 33}, {"bits": 8}])
def test_bad_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(FedftError, match="FEDFT-4011"):
        make_codec("int8", **options)
