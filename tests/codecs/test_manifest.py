from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedft.codecs import Manifest, TensorSpec, as_float32, state_digest
from fedft.errors import FedftError

STATE = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((), np.float32)}


def test_of_sorts_by_name_and_takes_torch_and_numpy_alike() -> None:
    manifest = Manifest.of(STATE)
    assert manifest.tensors == (TensorSpec("a", ()), TensorSpec("b", (2, 3)))
    assert manifest.total_elements == 7
    turned = {name: torch.from_numpy(np.asarray(STATE[name])) for name in ("a", "b")}
    assert Manifest.of(turned) == manifest
    assert state_digest(turned) == state_digest(STATE)


def test_digests_are_frozen() -> None:
    """Written down once: a change would make every stored run unreadable."""
    assert Manifest.of(STATE).digest() == "688d4d496ce6924ac3f2d0463d539c4665cb09e5bd44e616c2b42225048d541f"
    assert state_digest(STATE) == "f877c3a63c7068543264facbe7863e36f0f0c6d0df0fd1b62e476265a5cc2efe"


@given(
    st.lists(st.tuples(st.text(max_size=3), st.lists(st.integers(1, 3), max_size=3)), min_size=1, max_size=3)
)
def test_digest_tells_manifests_apart(entries: list[tuple[str, list[int]]]) -> None:
    """Names and shapes are length-prefixed, so no two lists run together."""
    names = dict(entries)
    one = Manifest.of({name: np.zeros(shape, np.float32) for name, shape in names.items()})
    other = Manifest.of({name + "1": np.zeros(shape, np.float32) for name, shape in names.items()})
    assert one.digest() != other.digest()


def test_one_bit_changes_the_state_digest() -> None:
    other = {name: value.copy() for name, value in STATE.items()}
    other["b"][1, 2] = np.nextafter(other["b"][1, 2], np.float32(9))
    assert state_digest(other) != state_digest(STATE)
    other["b"][1, 2] = STATE["b"][1, 2]
    assert state_digest(other) == state_digest(STATE)


def test_memory_order_does_not_matter() -> None:
    turned = STATE | {"b": np.asfortranarray(STATE["b"])}
    assert state_digest(turned) == state_digest(STATE)


def test_flatten_and_unflatten_are_inverse() -> None:
    manifest = Manifest.of(STATE)
    again = manifest.unflatten(manifest.flatten(STATE))
    assert all(np.array_equal(again[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_as_float32_takes_every_float_type(dtype: torch.dtype) -> None:
    value = torch.tensor([1.5, -2.0], dtype=dtype, requires_grad=True)
    assert as_float32(value).dtype == np.float32
    assert as_float32(value).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("state", [{}, {"a": np.zeros((0, 3), np.float32)}])
def test_empty_manifests_are_refused(state: dict[str, np.ndarray]) -> None:
    with pytest.raises(FedftError, match="FEDFT-4015"):
        Manifest.of(state)


def test_a_repeated_name_is_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-4015"):
        Manifest((TensorSpec("a", (1,)), TensorSpec("a", (2,))))
