from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fedft.errors import FedftError
from fedft.store.files import read_arrays, write_arrays, write_file


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    arrays = {
        "a": np.array([[1.5, -0.0], [np.nan, 1e-45]], np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "strided": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
    }

    write_arrays(tmp_path / "s.safetensors", arrays)

    found = read_arrays(tmp_path / "s.safetensors")
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == np.ascontiguousarray(value).tobytes()


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FedftError, match="No space left") as error:
        write_file(path, b"new")

    assert error.value.code == "FEDFT-6004"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
