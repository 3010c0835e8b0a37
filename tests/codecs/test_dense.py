from __future__ import annotations

import numpy as np
import pytest
import torch

from fedft.codecs import CodecContext, Manifest, decode, make_codec
from fedft.errors import FedftError


def coded(values: np.ndarray, name: str) -> np.ndarray:
    state = {"x": values}
    manifest = Manifest.of(state)
    return decode(make_codec(name).encode(state, manifest, CodecContext()), manifest, CodecContext())["x"]


def test_float32_is_exact() -> None:
    values = np.random.default_rng(0).normal(size=100_003).astype(np.float32)
    assert np.array_equal(coded(values, "dense"), values)


def test_bfloat16_rounds_as_torch_does() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3e38)]
    expected = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    assert np.array_equal(coded(values, "bf16"), expected)


def test_bfloat16_saturates_where_rounding_would_give_infinity() -> None:
    largest = np.finfo(np.float32).max
    assert np.isfinite(coded(np.array([largest, -largest], np.float32), "bf16")).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["dense", "bf16"])
def test_what_is_not_finite_is_not_encoded_and_the_tensor_is_named(name: str, bad: float) -> None:
    state = {"a": np.ones(3, np.float32), "b": np.array([0, bad], np.float32)}
    with pytest.raises(FedftError, match="FEDFT-4016 b "):
        make_codec(name).encode(state, Manifest.of(state), CodecContext())


def test_unknown_names_and_options() -> None:
    with pytest.raises(FedftError, match="FEDFT-1010"):
        make_codec("zip")
    with pytest.raises(FedftError, match="FEDFT-4011"):
        make_codec("dense", density=0.1)
