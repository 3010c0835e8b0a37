from __future__ import annotations

import math
from dataclasses import replace

from fedft.coordinator.events import (
    ClientAnswered,
    Event,
    Notice,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
)
from fedft.server.event_stream import EventStream, Subscription, event_from_json, event_to_json
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.store import EvaluationRecord, RoundRecord, UpdateRecord

STATED = PrivacyStatement(PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE, 1.1, 0.5, 0.01, 4, 2.75, 1e-5, "pld")
UPDATE = UpdateRecord("a", "accepted", weight=3, metrics={"train_loss": 0.5}, privacy=STATED)
RECORD = RoundRecord(
    1,
    "ab",
    seconds=2.0,
    phases={"training": 1.0},
    updates=(UPDATE,),
    evaluations=(EvaluationRecord("central", "", 5, {"loss": 1.0}),),
    privacy=replace(STATED, mechanism=PrivacyMechanism.GAUSSIAN, unit=PrivacyUnit.CLIENT),
    next_max_norm=0.25,
)
EVENTS: list[Event] = [
    RunStarted("r", "name", 1, 3),
    PhaseStarted(1, "training", 2),
    ClientAnswered(1, UPDATE),
    Notice("client-failed", "words"),
    RoundCommitted(RECORD),
    RunFinished("r", "ab"),
]


def _drain(mailbox: Subscription) -> list[Event | None]:
    found = []
    while not mailbox.empty():
        found.append(mailbox.get())
    return found


def test_every_event_survives_json() -> None:
    assert [event_from_json(event_to_json(event)) for event in EVENTS] == EVENTS


def test_what_json_has_no_number_for_survives_too() -> None:
    diverged = ClientAnswered(1, UpdateRecord("a", "accepted", metrics={"loss": math.nan, "norm": math.inf}))

    event = event_from_json(event_to_json(diverged))

    assert isinstance(event, ClientAnswered)
    assert math.isnan(event.update.metrics["loss"])
    assert event.update.metrics["norm"] == math.inf


def test_a_text_that_is_no_event_is_none() -> None:
    assert event_from_json('{"id": "a-run", "state": "completed"}') is None


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
