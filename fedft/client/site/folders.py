"""Where a client keeps what it must not lose, and what may name a file there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fedft.errors import Code, FedftError


@dataclass(frozen=True)
class ClientFolders:
    """The folders of one site, or of all simulated clients of one machine.

    Attributes:
        state: residuals, simulated ledgers and journals: what a client must not lose.
        cache: what can be fetched again.

    """

    state: Path
    cache: Path

    @classmethod
    def of_user(cls) -> ClientFolders:
        """Return where clients without a configuration of their own keep things: the XDG base directories."""
        return cls(_base("XDG_DATA_HOME", ".local/share"), _base("XDG_CACHE_HOME", ".cache"))

    def with_state(self, state: Path) -> ClientFolders:
        """Return the same with another folder of what must not be lost."""
        return ClientFolders(state, self.cache)


def checked_name(part: str) -> str:
    """Return the name of a run or client if it can name a file (FEDFT-7023)."""
    if not part or part.startswith(".") or "/" in part or "\0" in part or len(part) > 200:
        raise FedftError(Code.UNSAFE_NAME, f"{part[:80]!r} cannot name a file")
    return part


def _base(variable: str, usual: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / usual) / "fedft"
