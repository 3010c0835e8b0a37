"""The events of runs, for watchers that come and go, and their JSON."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fedft.coordinator.events import (
    ClientAnswered,
    Event,
    Notice,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
)

Subscription = queue.SimpleQueue[Event | None]


class EventStream:
    """Passes events on; a watcher that comes in the middle of a round is told its beginning first.

    None in a mailbox means that the run is carried on no further for now.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: dict[str, list[Event]] = {}
        self._mailboxes: dict[str, list[Subscription]] = {}

    def publish(self, run_id: str, event: Event) -> None:
        """Tell everyone who watches the run."""
        with self._lock:
            current = self._current.setdefault(run_id, [])
            if isinstance(event, PhaseStarted | RoundCommitted):
                current[:] = [kept for kept in current if isinstance(kept, RunStarted)]
            if not isinstance(event, RoundCommitted):
                current.append(event)
            for mailbox in self._mailboxes.get(run_id, []):
                mailbox.put(event)

    def pause(self, run_id: str) -> None:
        """Tell everyone that the run is carried on no further for now."""
        with self._lock:
            self._current.pop(run_id, None)
            for mailbox in self._mailboxes.get(run_id, []):
                mailbox.put(None)

    @contextmanager
    def mailbox(self, run_id: str) -> Iterator[Subscription]:
        """Give a mailbox that gets what there is of the current round, then everything new."""
        mailbox: Subscription = queue.SimpleQueue()
        with self._lock:
            for event in self._current.get(run_id, []):
                mailbox.put(event)
            self._mailboxes.setdefault(run_id, []).append(mailbox)
        try:
            yield mailbox
        finally:
            with self._lock:
                self._mailboxes[run_id].remove(mailbox)


class _Message(BaseModel):
    """An event on its way to a watcher; exactly one field is set."""

    model_config = ConfigDict(ser_json_inf_nan="strings", extra="forbid")

    run_started: RunStarted | None = None
    phase_started: PhaseStarted | None = None
    client_answered: ClientAnswered | None = None
    round_committed: RoundCommitted | None = None
    notice: Notice | None = None
    run_finished: RunFinished | None = None


_FIELDS = {
    kind: name
    for name, field in _Message.model_fields.items()
    for kind in get_args(field.annotation)
    if kind is not type(None)
}


def event_to_json(event: Event) -> str:
    """Return an event as a JSON object with one key, its kind."""
    return _Message(**{_FIELDS[type(event)]: event}).model_dump_json(exclude_none=True)


def event_from_json(text: str) -> Event | None:
    """Return the event of a text by :func:`event_to_json`; None for anything else."""
    try:
        values = _Message.model_validate_json(text)
    except ValidationError:
        return None
    return next((event for name in _FIELDS.values() if (event := getattr(values, name)) is not None), None)
