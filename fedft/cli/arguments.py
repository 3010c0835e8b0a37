"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_STORE = Path("runs")

Store = Annotated[
    Path, typer.Option("--store", envvar="FEDFT_STORE", help="Folder of the run store.", file_okay=False)
]
OptionalStore = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar="FEDFT_STORE",
        help="Folder of the run store; without it, the one that the configuration names.",
        file_okay=False,
    ),
]
Run = Annotated[str, typer.Argument(help="A run's id, a unique beginning of one, or [bold]latest[/].")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. rounds.total=3; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text for people.")]
Round = Annotated[
    int | None, typer.Option("--round", min=0, help="The state after this round; without it, the last.")
]


def examples(*commands: str) -> str:
    """Return the part of a command's help that shows how it is typed."""
    return "\n\n".join(["[bold]Examples[/]", *(f"[cyan]$ {command}[/]" for command in commands)])
