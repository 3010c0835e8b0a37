from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedft.adapters import build_frames
from fedft.adapters.initialisers.random import orthonormal_columns

# Any change of these is a change of every existing run's frames.
GOLDEN = "99a3541fff235fce45b9639d5df33e326706a6b00508710a4aa6226e7ca79fd1"


def model() -> nn.Module:
    return nn.ModuleDict({"one": nn.Linear(384, 1536), "two": nn.Linear(100, 7), "three": nn.Linear(100, 7)})


def digest(seed: int = 1) -> str:
    return build_frames(model(), ["one", "two"], initialiser="random", rank=6, seed=seed).digest()


def test_the_bits_are_pinned() -> None:
    assert digest() == GOLDEN


def test_another_process_with_other_threads_gives_the_same_bits() -> None:
    code = "from tests.adapters.test_random_frame import digest; print(digest())"
    environment = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == GOLDEN


@given(st.integers(1, 90), st.data(), st.text(max_size=5))
@settings(max_examples=80, deadline=None)
def test_columns_are_orthonormal_without_any_error(rows: int, data: st.DataObject, key: str) -> None:
    columns = data.draw(st.integers(1, rows))
    q = orthonormal_columns(rows, columns, key)
    assert np.array_equal(q.T @ q, np.eye(columns))


@pytest.mark.parametrize("rows", [384, 1536, 5632])
def test_every_entry_is_a_multiple_of_a_power_of_two_so_no_step_rounded(rows: int) -> None:
    q = orthonormal_columns(rows, 2, "k")
    assert np.array_equal(np.round(q * 2**24), q * 2**24)
    assert sum(Fraction(float(x)) ** 2 for x in q[:, 0]) == 1


def test_it_equals_a_dense_product_in_integers() -> None:
    # The definition again with dense matrices: three times a Hadamard block matrix and a permutation.
    from fedft.adapters.initialisers.random import _signed_permutation

    h4 = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    blocks = np.zeros((22, 22), dtype=np.int64)  # 16 + 4 + 1 + 1, all scaled by 4
    blocks[:16, :16], blocks[16:20, 16:20], blocks[20:, 20:] = np.kron(h4, h4), 2 * h4, 4 * np.eye(2)
    product = np.eye(22, dtype=np.int64)
    for stage in range(3):
        order, signs = _signed_permutation(22, f"key/{stage}")
        product = blocks @ (product[order] * signs[:, None].astype(np.int64))
    assert np.array_equal(orthonormal_columns(22, 22, "key"), product / 64)


@pytest.mark.parametrize("rows", [384, 768, 1536, 4096, 11008])
def test_columns_are_dense_and_rows_are_covered_like_a_gaussian_frame(rows: int) -> None:
    q = orthonormal_columns(rows, 32, "coverage")
    gaussian = np.linalg.qr(np.random.default_rng(0).normal(size=(rows, 32)))[0]
    assert (q == 0).mean() < 0.02
    assert np.abs(q).max() < 1.3 * np.abs(gaussian).max()
    row, other = (q**2).sum(1), (gaussian**2).sum(1)
    assert row.min() > 0.5 * other.min()
    assert row.max() < 1.5 * other.max()
    assert abs((q**4).sum(0).mean() / (gaussian**4).sum(0).mean() - 1) < 0.1


def test_seed_module_and_side_are_independent() -> None:
    one = build_frames(model(), ["three", "two"], initialiser="random", rank=7, seed=1)
    other = build_frames(model(), ["two"], initialiser="random", rank=7, seed=2)
    assert not torch.equal(one["two"].b, one["three"].b)
    assert not torch.equal(one["two"].b, other["two"].b)
    assert not torch.equal(one["two"].a[:, :7].T, one["two"].b)


def test_a_frame_does_not_depend_on_the_other_targets_or_on_the_rank_of_the_leading_columns() -> None:
    assert torch.equal(
        build_frames(model(), ["two"], initialiser="random", rank=3)["two"].a,
        build_frames(model(), ["one", "two"], initialiser="random", rank=6)["two"].a[:3],
    )
