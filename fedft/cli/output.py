"""How the command prints: tables and errors for people, JSON for scripts."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedft.errors import FedftError, Kind
from fedft.report.format import clean

SCHEMA_VERSION = 1
"""Version of every JSON object that the command prints; it changes when a key changes its meaning."""

OK, FAILURE, USAGE, UNREACHABLE, NOT_ALLOWED, INTERRUPTED = 0, 1, 2, 3, 4, 130
_STATUS = {
    Kind.USAGE: USAGE,
    Kind.UNAVAILABLE: UNREACHABLE,
    Kind.UNAUTHENTICATED: NOT_ALLOWED,
    Kind.DENIED: NOT_ALLOWED,
}
_WIDTH_OF_A_PIPE = 200


def console() -> Console:
    """Return a console on standard output; a pipe gets lines that are not wrapped to a terminal."""
    return _console(sys.stdout)


def error_console() -> Console:
    """Return a console on standard error."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _WIDTH_OF_A_PIPE
    return Console(file=stream, highlight=False, width=width)


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(json_line(values), flush=True)


def json_line(values: Mapping[str, Any]) -> str:
    """Return an object with its schema version as one line; numbers that JSON does not have become null."""
    return json.dumps(_finite({"schema_version": SCHEMA_VERSION, **values}), allow_nan=False)


def print_error(error: FedftError) -> None:
    """Print what happened and what to do about it on standard error."""
    text = Text.assemble((f"error {error.code}", "bold red"), "  ", _lines(error.message))
    printer = error_console()
    printer.print(text, soft_wrap=True)
    if error.hint:
        printer.print(Text.assemble(("hint", "bold cyan"), "  ", _lines(error.hint)), soft_wrap=True)


def exit_code(error: FedftError) -> int:
    """Return 2 for mistakes in the configuration or the command line, 3 for a server that is not reached, 4
    for one that refuses the caller, 1 for everything else.
    """
    return _STATUS.get(error.code.kind, FAILURE)


def new_table(*columns: str, left: tuple[str, ...] = ()) -> Table:
    """Return an empty table: numbers to the right, the first column and those of ``left`` to the left."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for index, column in enumerate(columns):
        is_left = index == 0 or column in left
        table.add_column(column, justify="left" if is_left else "right", no_wrap=not is_left)
    return table


def cell(text: str, style: str = "") -> Text:
    """Return foreign text that can neither colour the terminal nor move its cursor."""
    return Text(clean(text), style=style)


def _lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
