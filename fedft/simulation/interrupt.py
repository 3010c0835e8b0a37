"""Ctrl-C while Flower holds the main thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def interrupting(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C set ``stop``, and a second one end the process.

    Raised in the main thread, ``KeyboardInterrupt`` would leave Flower's pool with threads that wait for
    Ray, which the interpreter then waits for. With ``stop`` set the coordinator ends the run, resumable, and
    Flower's engine ends in order, once the clients at work have answered. Who does not want to wait for them
    presses again; what is committed is on disk.
    """

    def interrupted(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
