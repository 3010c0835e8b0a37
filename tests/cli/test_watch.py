from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence

import pytest
from rich.console import Console

from fedft.cli.progress import JsonLines, LiveScreen, PlainLines, RunObserver, Silence, choose_observer
from fedft.cli.watch import Watch
from fedft.coordinator.events import (
    ClientAnswered,
    Event,
    Notice,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
)
from tests.store.build import beginning, digest, training_round

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def events_of(rounds: int) -> list[Event]:
    events: list[Event] = [RunStarted("demo-1", "demo", 1, rounds), PhaseStarted(0, "model")]
    events.append(RoundCommitted(beginning()))
    for number in range(1, rounds + 1):
        record = training_round(number)
        events.append(PhaseStarted(number, "training", 3))
        events += [ClientAnswered(number, update) for update in record.updates]
        events += [PhaseStarted(number, "evaluation"), RoundCommitted(record)]
    return [*events, Notice("worker-lost", "worker 2 \x1b[2J ended"), RunFinished("demo-1", digest(rounds))]


def terminal(height: int = 50) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=height, color_system=None)


def pipe() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=200)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def show(observer: RunObserver, events: Sequence[Event]) -> RunObserver:
    with observer:
        for event in events:
            observer(event)
    return observer


def test_a_watch_counts_answers_and_bytes_of_the_open_round() -> None:
    watch = Watch()
    record = training_round(1)
    for event in (RunStarted("r", "r", 1, 4), RoundCommitted(beginning()), PhaseStarted(1, "training", 3)):
        watch.add(event)

    watch.add(ClientAnswered(1, record.updates[0]))
    watch.add(ClientAnswered(1, record.updates[1]))

    assert (watch.phase, watch.phase_total, watch.answers.total()) == ("training", 3, 2)
    assert (watch.sent.up, watch.sent.down, watch.sent.setup) == (150 + 2000, 2200, 15000)
    assert watch.seconds_left is None

    watch.add(ClientAnswered(1, record.updates[2]))
    watch.add(RoundCommitted(record))

    assert (watch.sent.up, watch.sent.down, watch.sent.setup) == (150 + 2000, 3300, 15000)
    assert (watch.committed, watch.phase) == (1, "")
    assert watch.seconds_left == 15.0
    assert [(row.group, row.before, row.after) for row in watch.groups] == [
        ("age", 0.125, 0.375),
        ("bus", 0.125, 0.375),
    ]


def test_a_watch_of_a_resumed_run_knows_its_earlier_rounds() -> None:
    watch = Watch([beginning(), training_round(1)])

    watch.add(RunStarted("r", "r", 2, 4))

    assert watch.committed == 1
    assert watch.sent.setup == 15000
    assert watch.groups[0].before == 0.125


def test_a_pipe_gets_one_line_for_each_round_and_notice() -> None:
    console = pipe()

    show(RunObserver(PlainLines(console)), events_of(2))

    lines = text_of(console).splitlines()
    assert lines[0] == "run demo-1 has started, 2 rounds"
    assert len(lines) == 5
    assert lines[2].startswith(
        "round 1/2  exact match 37.5 % · loss 1.625 · 1/3 clients (1 refused, 1 failed)"
    )
    assert lines[2].endswith("up 2.00 kB · down 3.30 kB · 5.00 s · age 37.5 %, bus 37.5 %")
    assert "setup 15.0 kB" in lines[1]
    assert lines[4].startswith("notice worker-lost: worker 2 ")
    assert "\x1b" not in text_of(console)


def test_json_lines_are_one_object_for_each_event() -> None:
    stream = io.StringIO()

    show(RunObserver(JsonLines(stream)), events_of(1))

    objects = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [item["event"] for item in objects] == [
        "run_started",
        "phase_started",
        "round_committed",
        "phase_started",
        *["client_answered"] * 3,
        "phase_started",
        "round_committed",
        "notice",
        "run_finished",
    ]
    assert {item["schema_version"] for item in objects} == {1}
    assert {item["run"] for item in objects} == {"demo-1"}
    assert objects[8]["record"]["updates"][1]["code"] == "FEDFT-5016"
    assert objects[-1]["digest"] == digest(1)


def test_a_terminal_shows_rounds_clients_bytes_and_groups_live() -> None:
    console = terminal()
    events = events_of(2)
    middle = events.index(PhaseStarted(2, "training", 3)) + 3

    observer = RunObserver(LiveScreen(console))
    with observer:
        for event in events[:middle]:
            observer(event)
        observer._screen._live.refresh()  # type: ignore[attr-defined]
        seen = text_of(console)

    assert "round 1/2  exact match 37.5 %" in seen
    last = seen[seen.rindex("rounds ") :]
    assert "1/2  about 5 s left" in last
    assert "2/3 clients  1 refused  round 2" in last
    assert "up 4.15 kB · down 5.50 kB · setup and frame 15.0 kB" in last
    assert "before" in last
    assert "12.5 %" in last
    assert "age" in last


def test_a_low_terminal_goes_without_the_groups() -> None:
    console = terminal(height=8)

    show(RunObserver(LiveScreen(console)), events_of(1))

    assert "before  " not in text_of(console)


def test_events_may_come_from_another_thread() -> None:
    console = terminal()
    observer = RunObserver(LiveScreen(console))

    with observer:

        def observe() -> None:
            for event in events_of(20):
                observer(event)

        threads = [threading.Thread(target=observe) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    assert not any(thread.is_alive() for thread in threads)
    assert text_of(console).count("has started") == 3


def test_the_screen_is_given_back_when_the_run_ends_with_an_error() -> None:
    console = terminal()

    def fail() -> None:
        with RunObserver(LiveScreen(console)) as observer:
            observer(RunStarted("r", "r", 1, 1))
            assert HIDE_CURSOR in text_of(console)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert text_of(console).rindex(SHOW_CURSOR) > text_of(console).rindex(HIDE_CURSOR)


@pytest.mark.parametrize(
    ("console", "json_mode", "quiet", "kind"),
    [
        (terminal(), False, False, LiveScreen),
        (pipe(), False, False, PlainLines),
        (terminal(), True, False, JsonLines),
        (terminal(), False, True, Silence),
        (terminal(), True, True, JsonLines),
    ],
)
def test_the_observer_goes_by_where_the_output_goes(
    console: Console, json_mode: bool, quiet: bool, kind: type
) -> None:
    observer = choose_observer(console, json=json_mode, quiet=quiet)

    assert isinstance(observer._screen, kind)


def test_silence_prints_nothing() -> None:
    console = pipe()

    observer = show(choose_observer(console, json=False, quiet=True), events_of(1))

    assert text_of(console) == ""
    assert observer.watch.run_id == "demo-1"
