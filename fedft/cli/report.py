"""``fedft report``: the run report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedft.cli.arguments import DEFAULT_STORE, Json, Run, Store, examples
from fedft.cli.output import console, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("fedft report latest", "fedft report sst2-2025 -o sst2.html"))(report)


def report(
    run: Run = "latest",
    store: Store = DEFAULT_STORE,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="HTML file; without it, reports/RUN.html in the store.", dir_okay=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a run's report: one self-contained HTML file.

    It shows quality, bytes, time and participation of every round, the
    configuration and the digests. It can be written while the run goes on.
    """
    from fedft.report.page import default_path, write_report
    from fedft.store import RunStore

    kept = RunStore(store, create=False)
    record = kept.run(run)
    path = output or default_path(kept, record)
    write_report(kept, record, path)
    if json:
        print_json({"run": record.id, "path": str(path.absolute())})
    else:
        console().print(f"report of {record.id}: [bold]{path}[/]", soft_wrap=True)
