from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedft.codecs.selection import largest


def oracle(values: np.ndarray, count: int) -> np.ndarray:
    """A stable sort takes the first of equal magnitudes; zeros are never kept."""
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    return np.sort(order[values[order] != 0])


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])),
    st.data(),
)
def test_equals_a_stable_sort_with_many_ties(values: np.ndarray, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, values.size))
    assert np.array_equal(largest(values, count), oracle(values, count))


@pytest.mark.parametrize("density", [1e-5, 0.01, 0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("kind", ["gaussian", "heavy", "sorted", "adversarial", "sparse"])
def test_equals_a_stable_sort_on_large_vectors(kind: str, density: float) -> None:
    rng = np.random.default_rng(3)
    size = 200_003
    values = rng.normal(size=size).astype(np.float32)
    if kind == "heavy":
        values = rng.standard_t(2, size).astype(np.float32)
    elif kind == "sorted":
        values = np.sort(values)
    elif kind == "adversarial":
        values[:: size // (1 << 14)] *= 100  # exactly what a strided sample looks at
    elif kind == "sparse":
        values[rng.random(size) < 0.95] = 0
    count = max(1, int(density * size))
    assert np.array_equal(largest(values, count), oracle(values, count))
