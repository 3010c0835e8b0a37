from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.linalg import hadamard

from fedft.codecs import CodecContext, Manifest, decode, make_codec
from fedft.codecs.rotation import BLOCK, padded_size, rotate, signs, unrotate
from fedft.errors import FedftError


def test_rotation_is_the_hadamard_matrix_times_the_signs() -> None:
    """Against scipy's matrix, in float64."""
    values = np.random.default_rng(0).normal(size=BLOCK + 100).astype(np.float32)
    padded = np.zeros(2 * BLOCK)
    padded[: values.size] = values
    expected = (padded * signs(b"s", values.size)).reshape(2, BLOCK) @ (hadamard(BLOCK) / np.sqrt(BLOCK))
    np.testing.assert_allclose(rotate(values, b"s"), expected.reshape(-1), atol=2e-5)


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 100_000])
def test_unrotate_is_the_inverse(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    rotated = rotate(values, b"seed")
    assert rotated.size == padded_size(size)
    np.testing.assert_allclose(unrotate(rotated.astype(np.float64), b"seed", size), values, atol=1e-5)


def test_unrotate_of_integers_is_exact() -> None:
    """Sums and differences of small integers are exact, so the order of additions shows nowhere."""
    coordinates = np.random.default_rng(1).integers(-100, 100, BLOCK).astype(np.float64)
    expected = (hadamard(BLOCK) @ coordinates.astype(np.int64)) / 64
    assert np.array_equal(unrotate(coordinates, b"", BLOCK), expected * signs(b"", BLOCK))


def test_signs_are_the_published_stream() -> None:
    """SHAKE-256, so that another implementation can follow it."""
    stream = hashlib.shake_256(b"fedft rotation v1\0" + b"seed").digest(2)
    bits = [stream[i // 8] >> (i % 8) & 1 for i in range(16)]
    assert signs(b"seed", 16)[:16].tolist() == [1 - 2 * bit for bit in bits]
    assert abs(signs(b"seed", 100_000).mean()) < 0.02
    assert not np.array_equal(signs(b"seed", 4096), signs(b"seee", 4096))


def test_no_seed_no_encoding() -> None:
    state = {"x": np.ones(10, np.float32)}
    for name in ("rotated1", "rotated2"):
        with pytest.raises(FedftError, match="FEDFT-4019"):
            make_codec(name).encode(state, Manifest.of(state), CodecContext())


def test_stochastic_codecs_need_a_generator() -> None:
    state = {"x": np.ones(10, np.float32)}
    with pytest.raises(FedftError, match="FEDFT-4019"):
        make_codec("int8").encode(state, Manifest.of(state), CodecContext())


@pytest.mark.parametrize("name", ["rotated1", "rotated2"])
def test_mean_of_many_clients_with_one_seed_comes_nearer_the_mean_of_updates(name: str) -> None:
    """One seed for all clients costs no accuracy: the error of the mean falls as with independent ones."""
    common = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    clients = [
        common + np.random.default_rng(i).normal(size=20_000).astype(np.float32) for i in range(1, 101)
    ]
    manifest = Manifest.of({"x": common})
    context = CodecContext(seed=b"one")
    codec = make_codec(name)
    decoded = [decode(codec.encode({"x": x}, manifest, context), manifest, context)["x"] for x in clients]
    single = np.linalg.norm(decoded[0] - clients[0]) / np.linalg.norm(clients[0])
    target = np.mean(clients, axis=0)
    together = np.linalg.norm(np.mean(decoded, axis=0) - target) / np.linalg.norm(
        np.mean(np.abs(clients), axis=0)
    )
    # The part that all clients have in common is rounded alike, so the gain is less than tenfold.
    assert together < 0.6 * single
