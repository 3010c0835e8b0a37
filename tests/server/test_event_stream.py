from __future__ import annotations

import json

from fedft.coordinator.events import (
    ClientAnswered,
    Notice,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
)
from fedft.server.event_stream import EventStream, event_from_dict, event_to_dict
from fedft.store import EvaluationRecord, RoundRecord, UpdateRecord

UPDATE = UpdateRecord("a", "accepted", weight=3, metrics={"train_loss": 0.5})
RECORD = RoundRecord(
    1,
    "ab",
    2.0,
    {"training": 1.0},
    updates=(UPDATE,),
    evaluations=(EvaluationRecord("central", "", 5, {"loss": 1.0}),),
)
EVENTS = [
    RunStarted("r", "name", 1, 3),
    PhaseStarted(1, "training", 2),
    ClientAnswered(1, UPDATE),
    Notice("client-failed", "words"),
    RoundCommitted(RECORD),
    RunFinished("r", "ab"),
]


def _drain(mailbox) -> list:
    found = []
    while not mailbox.empty():
        found.append(mailbox.get())
    return found


def test_every_event_survives_json() -> None:
    assert [event_from_dict(json.loads(json.dumps(event_to_dict(event)))) for event in EVENTS] == EVENTS


def test_a_watcher_gets_what_there_is_of_the_round_and_then_everything_new() -> None:
    feed = EventStream()
    for event in EVENTS[:3]:
        feed.publish("r", event)
    with feed.mailbox("r") as mailbox:
        for event in EVENTS[3:]:
            feed.publish("r", event)
            feed.publish("another", event)
        feed.pause("r")
        assert _drain(mailbox) == [*EVENTS, None]


def test_a_committed_round_is_not_told_again() -> None:
    feed = EventStream()
    for event in EVENTS[:5]:
        feed.publish("r", event)
    with feed.mailbox("r") as mailbox:
        assert _drain(mailbox) == [EVENTS[0]]
    feed.publish("r", EVENTS[5])
    assert mailbox.empty()
