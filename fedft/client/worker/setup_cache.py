"""Setups (configuration and frame) that this machine holds, by digest."""

from __future__ import annotations

from pathlib import Path

from fedft.errors import Code, FedftError
from fedft.store.files import write_file
from fedft.wire import Setup
from fedft.wire.setups import parse_setup, setup_bytes, setup_digest

_KEPT = 16


class SetupCache:
    """The last setups used, in ``folder``, so that a restarted client need not be sent them again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "setups"

    def keep(self, digest: str, setup: Setup) -> None:
        """Keep a setup that a server sent as ``digest``; FEDFT-7021 when it has another digest."""
        found = setup_digest(setup)
        if found != digest:
            raise FedftError(
                Code.SETUP_DIGEST_MISMATCH,
                f"the setup has digest {found[:16]}…, the instruction says {digest[:16]}…",
            )
        path = self._folder / digest
        if not path.exists():
            write_file(path, setup_bytes(setup))
            self._prune()

    def find(self, digest: str) -> Setup | None:
        """Return the setup with this digest, or None; a damaged file counts as absent and is removed."""
        path = self._folder / digest
        try:
            setup = parse_setup(path.read_bytes())
            if setup_digest(setup) == digest:
                return setup
        except FileNotFoundError:
            return None
        except (OSError, FedftError):
            pass
        path.unlink(missing_ok=True)
        return None

    def _prune(self) -> None:
        files = sorted(self._folder.iterdir(), key=_modified, reverse=True)
        for path in files[_KEPT:]:
            path.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process pruned it
        return 0.0
