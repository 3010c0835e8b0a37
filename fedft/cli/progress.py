"""Observers that show a run: live on a terminal, a line a round in a pipe, JSON lines for scripts.

All may be called from another thread than the one that made them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import IO, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedft import clock
from fedft.cli.output import json_line
from fedft.cli.watch import COMPARISON, Watch, describe_event, describe_groups, describe_others
from fedft.coordinator.events import Event, RoundCommitted
from fedft.report import facts
from fedft.report.format import clean, duration, is_share, metric_name, metric_value, size
from fedft.store import RoundRecord

_BAR, _LABEL = 32, 11


class Screen(Protocol):
    """Shows events; called by one thread at a time."""

    def start(self, watch: Watch) -> None:
        """Begin to show what ``watch`` gathers."""

    def show(self, event: Event, watch: Watch) -> None:
        """Show an event that the watch has taken in."""

    def stop(self) -> None:
        """Leave lines that stay."""


class RunObserver:
    """Watches a run and shows it on a screen, between entering and leaving its context."""

    def __init__(self, screen: Screen, earlier: Sequence[RoundRecord] = ()) -> None:
        self.watch = Watch(earlier)
        self._screen = screen
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        with self._lock:
            self.watch.add(event)
            self._screen.show(event, self.watch)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._screen.start(self.watch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave lines that stay."""
        self._screen.stop()


def choose_observer(
    console: Console, *, json: bool, quiet: bool, earlier: Sequence[RoundRecord] = ()
) -> RunObserver:
    """Return the observer for where the output goes."""
    if json:
        return RunObserver(JsonLines(console.file), earlier)
    if quiet:
        return RunObserver(Silence(), earlier)
    return RunObserver(LiveScreen(console) if console.is_terminal else PlainLines(console), earlier)


class Silence:
    """Shows nothing."""

    def start(self, watch: Watch) -> None:
        """Do nothing."""

    def show(self, event: Event, watch: Watch) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class PlainLines:
    """Prints one line for each round and notice."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, watch: Watch) -> None:
        """Do nothing: lines need no preparation."""

    def show(self, event: Event, watch: Watch) -> None:
        """Print the event's line."""
        line = describe_event(event, watch, with_bytes=True)
        groups = describe_groups(event.record) if isinstance(event, RoundCommitted) else ""
        if line:
            self._console.print(Text(f"{line} · {groups}" if groups else line), soft_wrap=True)

    def stop(self) -> None:
        """Do nothing."""


class JsonLines:
    """Prints every event as one JSON object on one line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def start(self, watch: Watch) -> None:
        """Do nothing: lines need no preparation."""

    def show(self, event: Event, watch: Watch) -> None:
        """Print the event's fields under its name."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
        now = clock.now().isoformat(timespec="milliseconds")
        fields = {key: value for key, value in asdict(event).items() if key != "run_id"}
        self._stream.write(json_line({"event": name, "time": now, "run": watch.run_id, **fields}) + "\n")
        self._stream.flush()

    def stop(self) -> None:
        """Do nothing."""


class LiveScreen:
    """Shows rounds, clients, bytes and quality live; leaves one line for each round on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(
            Text("starting …", style="dim"), console=console, refresh_per_second=6, transient=True
        )

    def start(self, watch: Watch) -> None:
        """Take the lower part of the terminal."""
        self._live.start()

    def show(self, event: Event, watch: Watch) -> None:
        """Print the event's line above the live part, and draw that anew."""
        # Drawn here, by the thread that brings the event: the refreshing thread never reads the watch.
        line = describe_event(event, watch, with_bytes=False)
        if line:
            style = "" if isinstance(event, RoundCommitted) else "dim"
            self._console.print(Text(line, style=style), soft_wrap=True)
        self._live.update(_screen(watch, self._console.height))

    def stop(self) -> None:
        """Take the live part away."""
        self._live.stop()


def _screen(watch: Watch, height: int) -> RenderableType:
    parts: list[RenderableType] = [Text(), _bars(watch), _sent_line(watch)]
    if watch.groups and len(watch.groups) + len(parts) + 6 < height:
        parts += [Text(), _groups_table(watch)]
    return Group(*parts)


def _bars(watch: Watch) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_LABEL)
    table.add_column(width=_BAR)
    table.add_column()
    table.add_row(
        "rounds",
        ProgressBar(total=watch.total_rounds, completed=watch.committed, width=_BAR),
        f"{watch.committed}/{watch.total_rounds}  {_about(watch.seconds_left)}",
    )
    if watch.phase:
        table.add_row(watch.phase, _phase_bar(watch), _phase_words(watch))
    return table


def _phase_bar(watch: Watch) -> ProgressBar:
    total = watch.phase_total
    if not total:
        return ProgressBar(total=None, pulse=True, width=_BAR)
    return ProgressBar(total=total, completed=watch.answers.total(), width=_BAR)


def _phase_words(watch: Watch) -> Text:
    place = f"round {watch.round}" if watch.round else "before the first round"
    if watch.phase == COMPARISON:
        return Text()
    if not watch.phase_total:
        return Text(place, style="dim")
    answered = f"{watch.answers.total()}/{watch.phase_total} clients"
    others = describe_others(watch.answers)
    return Text.assemble(answered, (f"  {others}", "red") if others else "", (f"  {place}", "dim"))


def _sent_line(watch: Watch) -> Table:
    sent = watch.sent
    line = Table.grid(padding=(0, 1))
    line.add_column(width=_LABEL)
    line.add_column()
    line.add_row("sent", f"up {size(sent.up)} · down {size(sent.down)} · setup and frame {size(sent.setup)}")
    return line


def _groups_table(watch: Watch) -> Table:
    metric = facts.headline_metric(watch.rounds)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=_LABEL - 1)
    for _ in range(2):
        table.add_column(justify="right")
    table.add_column()
    table.add_row(metric_name(metric), "before", "now", "", style="bold")
    for row in watch.groups:
        latest = row.before if row.after is None else row.after
        bar = ProgressBar(total=1.0, completed=latest or 0.0, width=_BAR // 2) if is_share(metric) else ""
        before, now = metric_value(metric, row.before), metric_value(metric, row.after)
        table.add_row(clean(row.group), before, now, bar)
    return table


def _about(seconds: float | None) -> str:
    if not seconds:
        return ""
    return f"about {f'{seconds:.0f} s' if seconds < 60 else duration(seconds)} left"
