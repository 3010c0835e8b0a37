"""The trade-off of a privacy plan as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from fedft.errors import Code, FedftError
from fedft.privacy.accounting.planning import PlanRow
from fedft.report import drawing

_COLOURS = (drawing.BLUE, drawing.ORANGE, drawing.GREEN, drawing.RED, drawing.PURPLE, drawing.SKY)
_MARKERS = "osD^vX"


def write_plot(path: Path, rows: Sequence[PlanRow], delta: float) -> None:
    """Draw noise by ε, one line for each expected batch, as a PNG; FEDFT-6051 when it cannot be written."""
    with matplotlib.rc_context(drawing.STYLE):
        figure = Figure(figsize=(drawing.WIDTH, 3.4), layout="constrained", dpi=150)
        left, right = figure.subplots(1, 2)
        _panel(left, rows, "noise_multiplier", "noise multiplier")
        _panel(right, rows, "noise_to_clip", "length of a step's noise over the clipping bound")
        right.axhline(1.0, color=drawing.SOFT, lw=0.9, ls=":")
        left.legend(title="expected batch")
        figure.suptitle(f"Noise that keeps the run within epsilon, at delta {delta:g}", fontsize=10)
        try:
            figure.savefig(path, format="png")
        except OSError as error:
            raise FedftError(
                Code.REPORT_NOT_WRITABLE, f"cannot write the plot {path}: {error.strerror}"
            ) from error


def _panel(axes: Any, rows: Sequence[PlanRow], field: str, title: str) -> None:
    batches = sorted({row.expected_batch for row in rows})
    for index, batch in enumerate(batches):
        points = [
            (row.epsilon, getattr(row, field))
            for row in rows
            if row.expected_batch == batch and getattr(row, field) is not None
        ]
        look = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)], "ms": 4}
        axes.plot(*zip(*points, strict=True), label=str(batch), **look) if points else None
    axes.set_title(title)
    axes.set_xlabel("epsilon of the run")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({row.epsilon for row in rows}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
