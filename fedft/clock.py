"""What time it is: one clock for the process, which a test can set.

Nothing else in ``fedft`` asks the operating system for the time (``tests/test_clock.py``). Waiting stays
real: a set clock decides what has expired, not how long a thread sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day and the time that has passed."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""


class SystemClock:
    """The operating system's clocks."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self._now, self._monotonic = start.astimezone(UTC), 0.0

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds that the clock was advanced by."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks go on."""
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def set_time_of_day(self, now: datetime) -> None:
        """Set the time of day, as an administrator or NTP does; no time passes."""
        self._now = now.astimezone(UTC)


_clock: Clock = SystemClock()


def now() -> datetime:
    """Return the time of day, in UTC."""
    return _clock.now()


def timestamp() -> float:
    """Return the time of day in seconds since 1970."""
    return _clock.now().timestamp()


def monotonic() -> float:
    """Return seconds since some moment; never goes back."""
    return _clock.monotonic()


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Let every thread of the process go by another clock."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before
