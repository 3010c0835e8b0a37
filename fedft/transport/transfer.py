"""Bytes in pieces: files that grow by chunks, survive a cut, and are checked by digest at the end."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedft.errors import Code, FedftError
from fedft.transport.tls import CHUNK

_MOST = 2 << 20
_SETTLE = 16 << 20


def pieces(data: bytes | memoryview, offset: int = 0) -> Iterator[bytes]:
    """Cut ``data`` from ``offset`` on into chunks of a mebibyte."""
    view = memoryview(data)
    for start in range(offset, len(view), CHUNK):
        yield bytes(view[start : start + CHUNK])


class PartialFile:
    """A file that is being received into ``path``; what is there of it lies in ``path.part``.

    Holds no more than one chunk in memory. Use as a context: leaving it closes the file and keeps what
    has arrived.

    Args:
        path: where the whole file will lie.
        digest: SHA-256 (hex) that it must have.
        size: bytes that it must have.

    """

    def __init__(self, path: Path, digest: str, size: int) -> None:
        self.path, self.digest, self.size = path, digest, size
        self._part = path.with_name(path.name + ".part")
        self._file: Any = None
        self._settled = 0
        self._hash = hashlib.sha256()

    @property
    def offset(self) -> int:
        """Number of bytes that are here, 0 to ``size``; all of them once the file is whole."""
        if self.path.exists():
            return self.size
        try:
            return min(self._part.stat().st_size, self.size)
        except FileNotFoundError:
            return 0

    def delete(self) -> None:
        """Delete what is here of it."""
        self.path.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Open the file to go on where it ends; FEDFT-7037 while another transfer writes to it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise FedftError(
                Code.TRANSFER_DAMAGED, "another transfer of the same bytes is going on"
            ) from None
        self._file.seek(0)
        self._hash = hashlib.sha256()
        while block := self._file.read(CHUNK):
            self._hash.update(block)
        self._settled = self._file.tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._file.close()

    def add(self, data: bytes) -> None:
        """Append a chunk; FEDFT-7036 when it is too large or the file would be."""
        if len(data) > _MOST or self._file.tell() + len(data) > self.size:
            raise FedftError(
                Code.TRANSFER_TOO_LARGE, f"a chunk of {len(data)} bytes goes beyond what was announced"
            )
        self._file.write(data)
        self._hash.update(data)
        if self._file.tell() >= self._settled + _SETTLE:
            self._settle()

    def _settle(self) -> None:
        """Write what arrived to the disk and let its pages be used again.

        A large file that is left to the page cache takes a new page for each of its own, and what a new page
        costs (in a virtual machine most of all) was more than half of the work of a download.
        """
        self._file.flush()
        os.fdatasync(self._file.fileno())
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._settled = self._file.tell()

    def finish(self) -> None:
        """Check the digest, make the file durable and give it its name.

        Raises:
            FedftError: FEDFT-7037 when bytes are missing (they can still come) or the digest differs (then
                what was here is deleted).

        """
        here = self._file.tell()
        if here < self.size:
            raise FedftError(Code.TRANSFER_DAMAGED, f"the transfer ended after {here} of {self.size} bytes")
        if self._hash.hexdigest() != self.digest:
            self._part.unlink(missing_ok=True)
            raise FedftError(Code.TRANSFER_DAMAGED, "the bytes that arrived do not have the digest announced")
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._part, self.path)


def receive(file: PartialFile, chunks: Iterable[bytes]) -> None:
    """Append chunks to a partial file and finish it."""
    with file:
        for data in chunks:
            file.add(data)
        file.finish()


def keep_newest(folder: Path, count: int) -> None:
    """Delete all but the newest files of a folder."""
    files = sorted(folder.iterdir(), key=_modified, reverse=True)
    for path in files[count:]:
        path.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
