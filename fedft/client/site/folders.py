"""Where a client keeps what it must not lose, and what may name a file there."""

from __future__ import annotations

import os
from pathlib import Path

from fedft.errors import Code, FedftError


def state_folder() -> Path:
    """Return ``$FEDFT_STATE``, or ``~/.local/share/fedft``: what clients must not lose, unlike a cache."""
    return Path(os.environ.get("FEDFT_STATE") or Path.home() / ".local" / "share" / "fedft")


def checked_name(part: str) -> str:
    """Return the name of a run or client if it can name a file (FEDFT-7023)."""
    if not part or part.startswith(".") or "/" in part or "\0" in part:
        raise FedftError(Code.UNSAFE_NAME, f"{part!r} cannot name a file")
    return part
