"""Results of an experiment, row by row, in a JSON file, so that a stopped script goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Rows:
    """The rows in ``path``; a row is named by what it was asked for ("arm", "seed" and so on)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[Row] = json.loads(path.read_text()) if path.exists() else []

    def add(self, asked: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measure and keep a row, unless it is there; print it."""
        if self.select(**asked):
            return
        row = {**asked, **measure()}
        self.all.append(row)
        self.path.write_text(json.dumps(self.all, indent=1) + "\n")
        print(json.dumps(row), flush=True)

    def select(self, **asked: Any) -> list[Row]:
        """Return the rows with these values."""
        return [row for row in self.all if all(row.get(key) == value for key, value in asked.items())]
