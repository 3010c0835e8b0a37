"""The events of runs, for watchers that come and go, and their JSON."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fedft.coordinator.events import (
    ClientAnswered,
    Event,
    Notice,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
)
from fedft.store import EvaluationRecord, RoundRecord, UpdateRecord

Subscription = queue.SimpleQueue[Event | None]
_KINDS = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(): kind
    for kind in (RunStarted, PhaseStarted, ClientAnswered, RoundCommitted, Notice, RunFinished)
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


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


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return an event as plain values under its name."""
    return {"event": _NAMES[type(event)], **asdict(event)}


def event_from_dict(values: dict[str, Any]) -> Event:
    """Inverse of :func:`event_to_dict`, also after a way through JSON."""
    fields = {key: value for key, value in values.items() if key not in ("event", "schema_version")}
    if "record" in fields:
        fields["record"] = round_from_dict(fields["record"])
    if "update" in fields:
        fields["update"] = UpdateRecord(**fields["update"])
    event: Event = _KINDS[values["event"]](**fields)
    return event


def round_from_dict(values: dict[str, Any]) -> RoundRecord:
    """Make a round's record of plain values."""
    updates = tuple(UpdateRecord(**update) for update in values["updates"])
    evaluations = tuple(EvaluationRecord(**evaluation) for evaluation in values["evaluations"])
    names = RoundRecord.__dataclass_fields__
    known = {key: value for key, value in values.items() if key in names}
    return RoundRecord(**{**known, "updates": updates, "evaluations": evaluations})
