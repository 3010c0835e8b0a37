"""Content-addressed files, written so that a crash leaves either nothing or the whole file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.tensors import Arrays


def write_file(path: Path, data: bytes) -> None:
    """Write a file of the store atomically and durably.

    Raises:
        FedftError: FEDFT-6004 when the disk refuses (full, read-only, no permission).

    """
    try:
        write_atomically(path, data)
    except OSError as error:
        raise FedftError(Code.STORE_UNUSABLE, f"cannot write {path}: {error.strerror}") from error


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write float32 arrays as safetensors, unless the (content-addressed) file is there already."""
    if not path.exists():
        write_file(path, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def read_arrays(path: Path) -> Arrays:
    """Read what :func:`write_arrays` wrote; FEDFT-6005 when it is missing or damaged."""
    try:
        arrays: Arrays = load(path.read_bytes())
        return arrays
    except (OSError, SafetensorError) as error:
        raise FedftError(Code.STORED_FILE_DAMAGED, f"cannot read the state {path}: {error}") from error
