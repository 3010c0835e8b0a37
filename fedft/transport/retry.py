"""Trying again, with growing pauses that differ between clients."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

from fedft import clock


class Backoff:
    """Pauses that double from ``first`` to ``longest`` seconds, each shortened by up to half at random.

    The chance in it keeps clients that lost the same server from coming back all at once.
    """

    def __init__(self, first: float = 0.2, longest: float = 5.0) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self._next = self._first

    def pause(self) -> float:
        """Return the next pause in seconds."""
        value, self._next = self._next, min(2 * self._next, self._longest)
        return value * random.SystemRandom().uniform(0.5, 1.0)


def attempts(stop: threading.Event, seconds: float) -> Iterator[None]:
    """Yield until ``seconds`` have passed or ``stop`` is set, pausing between; at least once."""
    end, backoff = clock.monotonic() + seconds, Backoff()
    while True:
        yield
        if stop.wait(max(0.0, min(backoff.pause(), end - clock.monotonic()))) or clock.monotonic() >= end:
            return
