"""Running the command in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from fedft.cli.main import app


def fedft(*arguments: object, **environment: str) -> Result:
    """Run the command; an exception that it does not turn into a message fails the test."""
    clean = {"FEDFT_STORE": None, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=clean)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def output_json(result: Result) -> Any:
    """Parse the one line of JSON that a command printed; check its schema version."""
    (line,) = result.stdout.splitlines()
    values = json.loads(line, parse_constant=lambda name: f"not JSON: {name}")
    assert values.pop("schema_version") == 1
    return values


def words(text: str) -> str:
    """Text without line breaks and column gaps."""
    return " ".join(text.split())
