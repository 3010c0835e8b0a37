"""``fedft doctor``: what this installation computes with, and why."""

from __future__ import annotations

import typer

from fedft.cli.arguments import Json, examples
from fedft.cli.output import cell, console, new_table, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("fedft doctor", "FEDFT_KERNELS=torch fedft doctor --json"))(doctor)


def doctor(json: Json = False) -> None:
    """Show which kernels, instruction set and devices are used here, and the reasons.

    Compiles the kernels if that is still to be done.
    """
    from fedft.quant.doctor import describe

    facts = describe()
    if json:
        print_json({"facts": facts})
        return
    table = new_table("what", "found", left=("found",))
    for name, found in facts.items():
        table.add_row(name, cell(found))
    console().print(table)
