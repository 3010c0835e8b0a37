"""What a daemon is doing, in a file that `fedft client status` reads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fedft import clock
from fedft.errors import Code, FedftError

_FILE, _LOCK = "status.json", "lock"


@dataclass
class Status:
    """A daemon's own account of itself; times are Unix seconds, 0 for never."""

    client: str
    server: str
    pid: int = 0
    worker_pid: int = 0
    worker_starts: int = 0
    started: float = 0.0
    connected: bool = False
    connected_since: float = 0.0
    clock_skew: float = 0.0
    phase: str = "starting"
    run: str = ""
    round: int = 0
    answered: int = 0
    repeated: int = 0
    declined: int = 0
    last_error: str = ""
    last_error_at: float = 0.0


class StatusFile:
    """The status of this daemon; every change is written at once."""

    def __init__(self, folder: Path, status: Status) -> None:
        self._path, self._status = folder / _FILE, status
        self._lock = threading.Lock()

    def update(self, **values: Any) -> None:
        """Set fields and write the file; a disk that refuses is no reason to stop working."""
        with self._lock:
            for name, value in values.items():
                setattr(self._status, name, value)
            with contextlib.suppress(OSError):
                # Not synced: nobody needs it after a crash, and a round need not wait for the disk.
                temporary = self._path.with_suffix(".new")
                temporary.write_text(json.dumps(asdict(self._status)))
                os.replace(temporary, self._path)

    def add(self, name: str) -> None:
        """Count one more."""
        self.update(**{name: getattr(self._status, name) + 1})

    def error(self, error: FedftError, **values: Any) -> None:
        """Note an error."""
        self.update(last_error=str(error), last_error_at=clock.timestamp(), **values)


def lock_state(folder: Path) -> IO[str]:
    """Take the state folder for this process, for as long as the returned file is open.

    Raises:
        FedftError: FEDFT-7052 when another daemon has it, FEDFT-7055 when the folder cannot be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("a+")
    except OSError as error:
        raise FedftError(Code.SITE_DISK_UNWRITABLE, f"cannot write to {folder}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FedftError(
            Code.SITE_STATE_LOCKED,
            f"another daemon runs with the state in {folder}",
            hint="`fedft client status` shows it; every site needs a folder of its own",
        ) from None
    return file


def read_status(folder: Path) -> tuple[Status | None, bool]:
    """Return the last status written and whether a daemon is running now."""
    try:
        status = Status(**json.loads((folder / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        status = None
    return status, _locked(folder / _LOCK)


def _locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
