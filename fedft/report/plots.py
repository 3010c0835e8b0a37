"""The report's plots, each from the rounds of one run to an SVG element; empty when there is nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from fedft.report import drawing, facts
from fedft.report.format import clean, duration, is_share, metric_name, metric_value, size
from fedft.store import RoundRecord

Rounds = Sequence[RoundRecord]

_MOST_GROUPS = 24
_MOST_CLIENTS, _MOST_ROUNDS = 40, 80
_STATUS_LOOK = {
    "accepted": (drawing.GREEN, "o", ""),
    "refused": (drawing.RED, "X", "xx"),
    "failed": (drawing.INK, "^", "//"),
    "late": (drawing.ORANGE, "s", ".."),
}
_PHASE_LOOK = {
    "training": (drawing.BLUE, ""),
    "evaluation": (drawing.ORANGE, "//"),
    "aggregation": (drawing.GREEN, ".."),
    "frame": (drawing.PURPLE, "xx"),
    "model": (drawing.SOFT, ""),
    "clients": (drawing.SKY, "\\\\"),
}
_OTHER_PHASE = (drawing.FAINT, "")


def quality(rounds: Rounds) -> str:
    """Metrics of the whole test set by round."""
    chosen = facts.leading_metrics(rounds)

    def draw(figure: Figure) -> None:
        for axes, metric in zip(_row(figure, len(chosen)), chosen, strict=True):
            _quality_panel(axes, rounds, metric)

    return drawing.svg("quality", draw, 2.9, "Quality by round") if chosen else ""


def _quality_panel(axes: Any, rounds: Rounds, metric: str) -> None:
    axes.set_title(metric_name(metric), pad=24)
    axes.plot(
        *_xy(facts.series(rounds, metric)), color=drawing.BLUE, marker="o", ms=4, label="federated model"
    )
    clients = facts.series(rounds, metric, scope="federated")
    if clients:
        axes.plot(
            *_xy(clients), color=drawing.ORANGE, marker="s", ms=4, ls="--", label="on the clients' own data"
        )
    pooled = facts.series(rounds, metric, scope="pooled")
    if pooled:
        axes.axhline(pooled[-1][1], color=drawing.INK, ls=":", lw=1.4, label="central, on pooled data")
    _metric_axis(axes, metric)
    drawing.round_axis(axes)
    drawing.legend_above(axes, 3)


def groups(rounds: Rounds, metric: str) -> str:
    """The headline metric of every group by round, as small multiples with one common axis."""
    names = facts.groups_of(rounds)[:_MOST_GROUPS]
    lines = {name: facts.series(rounds, metric, name) for name in names}
    if not any(lines.values()):
        return ""
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for axes, name in zip(grid, names, strict=False):
            _group_panel(axes, name, metric, lines[name], facts.series(rounds, metric))
        for axes in list(grid)[len(names) :]:
            axes.set_visible(False)
        figure.supxlabel("round", fontsize=9.5)

    return drawing.svg("groups", draw, 0.4 + 1.55 * rows, f"{metric_name(metric)} of each group by round")


def _group_panel(
    axes: Any, name: str, metric: str, line: list[tuple[int, float]], whole: list[tuple[int, float]]
) -> None:
    axes.plot(*_xy(whole), color=drawing.FAINT, lw=1.6, zorder=1)
    axes.plot(*_xy(line), color=drawing.BLUE, marker="o", ms=3, zorder=2)
    axes.set_title(clean(name), fontsize=9.5)
    if line:
        first, last = (metric_value(metric, value) for value in (line[0][1], line[-1][1]))
        axes.set_title(f"{first} → {last}", loc="right", fontsize=8.5, fontweight="normal")
    _metric_axis(axes, metric)
    drawing.round_axis(axes)
    axes.set_xlabel("")


def bytes_sent(rounds: Rounds) -> str:
    """Bytes of each direction, by round and added up; setup and frame counted."""
    used = [record for record in rounds if record.updates]
    if not used:
        return ""

    def draw(figure: Figure) -> None:
        left, right = _row(figure, 2)
        _bytes_by_round(left, used)
        _bytes_added_up(right, used)

    return drawing.svg("bytes", draw, 3.1, "Bytes by round and added up, for each direction")


def _bytes_by_round(axes: Any, rounds: Rounds) -> None:
    numbers = [record.round for record in rounds]
    sent = [facts.traffic(record.updates) for record in rounds]
    looks = (
        ("updates up", [item.up for item in sent], drawing.BLUE, "^", "-"),
        ("states down", [item.down for item in sent], drawing.ORANGE, "v", "--"),
        ("setup and frame down", [item.setup for item in sent], drawing.PURPLE, "D", ":"),
    )
    for label, values, colour, marker, dash in looks:
        points = [(number, value) for number, value in zip(numbers, values, strict=True) if value]
        if points:
            axes.plot(*_xy(points), color=colour, marker=marker, ms=5, ls=dash, lw=1.2, label=label)
    axes.set_title("in each round, all clients", pad=24)
    _byte_axis(axes, [value for _, values, *_ in looks for value in values if value])
    drawing.round_axis(axes)
    drawing.legend_above(axes, 3)


def _bytes_added_up(axes: Any, rounds: Rounds) -> None:
    numbers = [record.round for record in rounds]
    sums = list(accumulate(facts.traffic(record.updates) for record in rounds))
    axes.plot(numbers, [item.up for item in sums], color=drawing.BLUE, marker="o", ms=3, label="up")
    axes.plot(
        numbers,
        [item.down + item.setup for item in sums],
        color=drawing.ORANGE,
        marker="o",
        ms=3,
        ls="--",
        label="down, setup and frame counted",
    )
    axes.set_title("added up", pad=24)
    axes.set_ylim(bottom=0)
    drawing.format_axis(axes, _round_size)
    drawing.round_axis(axes)
    drawing.legend_above(axes, 2)


def _byte_axis(axes: Any, values: list[int]) -> None:
    if values and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0, top=1.15 * max(values, default=1))
    drawing.format_axis(axes, _round_size)


def seconds(rounds: Rounds) -> str:
    """Time of each phase in each round, stacked."""
    phases = facts.phases_of(rounds)
    if not phases:
        return ""
    numbers = [record.round for record in rounds]

    def draw(figure: Figure) -> None:
        (axes,) = _row(figure, 1)
        below = [0.0] * len(numbers)
        for phase in phases:
            heights = [record.phases.get(phase, 0.0) for record in rounds]
            colour, hatch = _PHASE_LOOK.get(phase, _OTHER_PHASE)
            _bars(axes, numbers, heights, below, colour, hatch, phase)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        drawing.format_axis(axes, _clock)
        drawing.round_axis(axes)
        drawing.legend_above(axes, 6)

    return drawing.svg("seconds", draw, 2.7, "Seconds of each phase in each round")


def participation(rounds: Rounds) -> str:
    """Who was asked in each round and what came of it; counts instead of names for many clients."""
    trained = [record for record in facts.training_rounds(rounds) if record.updates]
    clients = facts.clients_of(trained)
    if not clients:
        return ""
    small = len(clients) <= _MOST_CLIENTS and len(trained) <= _MOST_ROUNDS

    def draw(figure: Figure) -> None:
        (axes,) = _row(figure, 1)
        if small:
            _participation_grid(axes, trained, clients)
        else:
            _participation_counts(axes, trained)
        drawing.round_axis(axes)
        drawing.legend_above(axes)

    height = 0.95 + 0.24 * len(clients) if small else 2.7
    return drawing.svg("participation", draw, height, "What came of each client in each round")


def _participation_grid(axes: Any, rounds: Rounds, clients: list[str]) -> None:
    place = {client: index for index, client in enumerate(clients)}
    for status, (colour, marker, _) in _STATUS_LOOK.items():
        points = [
            (record.round, place[update.client])
            for record in rounds
            for update in record.updates
            if update.status == status
        ]
        if points:
            axes.scatter(*_xy(points), color=colour, marker=marker, s=34, linewidths=0, label=status)
    axes.set_yticks(range(len(clients)), [clean(client)[:40] for client in clients])
    axes.set_ylim(len(clients) - 0.5, -0.5)
    axes.set_xlim(rounds[0].round - 0.5, rounds[-1].round + 0.5)


def _participation_counts(axes: Any, rounds: Rounds) -> None:
    numbers = [record.round for record in rounds]
    counted = [facts.statuses(record.updates) for record in rounds]
    below = [0.0] * len(numbers)
    for status, (colour, _, hatch) in _STATUS_LOOK.items():
        heights = [float(counts[status]) for counts in counted]
        if any(heights):
            _bars(axes, numbers, heights, below, colour, hatch, status)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_ylabel("clients")


def _bars(
    axes: Any,
    numbers: list[int],
    heights: list[float],
    below: list[float],
    colour: str,
    hatch: str,
    label: str,
) -> None:
    many = len(numbers) > _MOST_ROUNDS
    axes.bar(
        numbers,
        heights,
        bottom=below,
        color=colour,
        hatch="" if many else hatch,
        edgecolor="white",
        linewidth=0 if many else 0.4,
        width=1.0 if many else 0.72,
        label=label,
        rasterized=len(numbers) > 400,
    )


def _row(figure: Figure, columns: int) -> list[Any]:
    axes: list[Any] = list(figure.subplots(1, columns, squeeze=False).flat)
    return axes


def _xy(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _metric_axis(axes: Any, metric: str) -> None:
    if is_share(metric):
        axes.set_ylim(-0.02, 1.02)
        drawing.format_axis(axes, lambda value: f"{100 * value:.0f} %")


def _clock(value: float) -> str:
    return f"{value:g} s" if value < 120 else duration(value)


def _round_size(value: float) -> str:
    return size(value).replace(".00 ", " ").replace(".0 ", " ")
