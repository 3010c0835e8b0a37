"""Memory and disk of a deployment over its rounds."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Callable
from pathlib import Path

from tests.soak.world import World

_MIB = 1 << 20
_KIB = 1 << 10
Samples = dict[str, list[tuple[int, float]]]


class Usage:
    """Samples resident memory (the mean of each role's processes) and folders every few seconds."""

    def __init__(self, world: World, round_now: Callable[[], int], seconds: float = 3.0) -> None:
        self._world, self._round, self._seconds = world, round_now, seconds
        self.memory: Samples = {}
        self.disk: Samples = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Usage:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _sample(self) -> None:
        while not self._stop.wait(self._seconds):
            with contextlib.suppress(OSError, ValueError):
                self._once()

    def _once(self) -> None:
        number = self._round()
        for role, pids in self._world.processes_now().items():
            held = [size for pid in pids if (size := _resident(pid))]
            if held:
                self.memory.setdefault(role, []).append((number, statistics.mean(held) / _MIB))
        folder = self._world.settings.folder
        folders = {"states": folder / "store" / "states", "inbox": folder / "inbox"}
        folders["site state"] = self._world.folder / self._world.names[0] / "state"
        for name, place in folders.items():
            self.disk.setdefault(name, []).append((number, _bytes_in(place) / _KIB))

    def summary(self) -> dict[str, dict[str, list[float]]]:
        """Return the median of each quarter of the samples: MiB of memory, KiB of disk."""
        parts = {"memory MiB": self.memory, "disk KiB": self.disk}
        return {
            what: {name: _quarters(found) for name, found in all_.items()} for what, all_ in parts.items()
        }


def growing(summary: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return what lies clearly higher in the last quarter than in the second; the first is the start.

    A write-ahead log of SQLite grows to 4 MiB and stays there.
    """
    slack = {"memory MiB": 64.0, "disk KiB": 6144.0}
    return [
        f"{what} of {name} grows: {quarters}"
        for what, found in summary.items()
        for name, quarters in found.items()
        if len(quarters) == 4 and quarters[3] > 1.25 * quarters[1] + slack[what]
    ]


def _quarters(samples: list[tuple[int, float]]) -> list[float]:
    if len(samples) < 8:
        return []
    size = len(samples) / 4
    cuts = [round(part * size) for part in range(5)]
    values = [value for _, value in samples]
    return [round(statistics.median(values[cuts[i] : cuts[i + 1]]), 1) for i in range(4)]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() and path.name != "ballast" else 0
    return total
