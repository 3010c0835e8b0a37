"""The calls that each key has open: how many there may be, and how all of them are ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedft.errors import Code, FedftError

CONNECT, TRANSFER, WATCH, REQUEST = "connect", "transfer", "watch", "request"
_MOST_OF_A_KEY = {CONNECT: 4, TRANSFER: 8, WATCH: 4, REQUEST: 8}
"""A daemon needs one connection, its predecessor's that is not yet over, and one transfer."""
_END_SECONDS = 5.0


class OpenCalls:
    """Counts calls by key and kind; safe to use from every thread.

    One key that opens as many calls as it can takes away its own alone. Ending a key's calls is part of a
    revocation: what it began before ends with it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[str, list[tuple[str, Callable[[], object]]]] = {}

    @contextmanager
    def one_of(self, key: str, kind: str, cancel: Callable[[], object]) -> Iterator[None]:
        """Hold a call open, for as long as the context lasts.

        Args:
            key: fingerprint of the caller's key.
            kind: one of the kinds above.
            cancel: ends the call, from any thread.

        Raises:
            FedftError: FEDFT-7058 when the key has as many calls of this kind as it may have.

        """
        call = (kind, cancel)
        with self._changed:
            calls = self._calls.setdefault(key, [])
            most = _MOST_OF_A_KEY[kind]
            if sum(other == kind for other, _ in calls) >= most:
                raise FedftError(
                    Code.TOO_MANY_CALLS,
                    f"this key has {most} calls of the kind {kind!r} open",
                    hint="one daemon for each key; if no other should run, treat the key as stolen",
                )
            calls.append(call)
        try:
            yield
        finally:
            with self._changed:
                calls.remove(call)
                if not calls and self._calls.get(key) is calls:
                    del self._calls[key]
                self._changed.notify_all()

    def end(self, key: str) -> bool:
        """Cancel every call of a key and wait until they are over; whether they all were within 5 s."""
        with self._changed:
            for _, cancel in list(self._calls.get(key, ())):
                cancel()
            return self._changed.wait_for(lambda: not self._calls.get(key), _END_SECONDS)
