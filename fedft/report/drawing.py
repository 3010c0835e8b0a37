"""How plots look, and how they become SVG text that can stand inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008); hatches and dashes do in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, SOFT, FAINT = "#1a1a1a", "#666666", "#dddddd"
WIDTH = 9.2

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
    "svg.fonttype": "none",
}
_IDS = re.compile(r'(\bid="|href="#|url\(#)')


def svg(name: str, draw: Callable[[Figure], None], height: float, description: str) -> str:
    """Draw a figure and return it as an ``<svg>`` element that scales with the page.

    Args:
        name: prefix of all ids in the element, so that several figures can share one page.
        draw: fills the figure.
        height: in inches; the width is :data:`WIDTH`.
        description: what a reader who cannot see it is told.

    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = _IDS.sub(rf"\g<1>{name}-", text[text.index("<svg") :])
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    size = re.compile(r' width="[^"]*pt" height="[^"]*pt"|<metadata>.*?</metadata>', re.DOTALL)
    head, _, body = size.sub("", text).partition(">")
    return f'{head} role="img" aria-label="{label}">{body}'


def round_axis(axes: Any) -> None:
    """Label the x axis as whole rounds."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def format_axis(axes: Any, write: Callable[[float], str]) -> None:
    """Write the y axis' ticks with a function."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: write(value)))


def legend_above(axes: Any, columns: int = 4) -> None:
    """Put the legend over the plot, where it hides nothing."""
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, borderaxespad=0.1, handlelength=1.6
    )
    # A title's padding keeps the place free; a legend in the layout would push its neighbours aside.
    legend.set_in_layout(not axes.get_title(loc="left"))
