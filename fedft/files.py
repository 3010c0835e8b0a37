"""Files and folders that a crash leaves either as they were or complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedft.errors import Code, FedftError


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``: a temporary file beside it, fsync, rename, fsync of the folder.

    The folder is made when it is missing. Raises OSError when the disk refuses; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``path`` that gets its name when the context ends without an error.

    Who is killed meanwhile leaves no folder of that name; the next attempt begins anew.

    Raises:
        FedftError: FEDFT-6008 when ``path`` is there and is not an empty folder.

    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FedftError(
            Code.OUTPUT_NOT_EMPTY, f"{path} exists and is not an empty folder", hint="name a new folder"
        )
    begun = path.with_name(f".{path.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    try:
        yield begun
        os.replace(begun, path)
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
