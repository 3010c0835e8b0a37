"""``fedft plan``: what a run will need, before it is started."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import console, new_table, print_json

commands = typer.Typer(no_args_is_help=True, help="Estimate what a run needs before it is started.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="plan")


@commands.callback()
def group() -> None:
    """Estimate what a run needs before it is started."""


@commands.command(
    epilog=examples(
        "fedft plan memory run.toml",
        "fedft plan memory run.toml --set model.quant=nf4 --set training.micro_batch_size=4",
        "fedft plan memory demo --tokens 128 --json",
    )
)
def memory(
    source: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A TOML file, or [bold]demo[/] for the bundled one.")
    ],
    overrides: Overrides = None,
    batch: Annotated[
        int, typer.Option(min=0, help="Samples in one forward pass; without it, as configured.")
    ] = 0,
    tokens: Annotated[
        int, typer.Option(min=0, help="Tokens of every sample; without it, task.max_length.")
    ] = 0,
    json: Json = False,
) -> None:
    """Estimate the peak memory of one client's training step.

    The step is run on tensors without memory while every storage that comes and
    goes is counted; no weight is read. Python and its libraries need a few
    hundred megabytes more.
    """
    from fedft.config.load import load_config, parse_overrides
    from fedft.report.format import MEMORY_PARTS, size
    from fedft.training.memory import plan_run

    plan = plan_run(
        load_config(source, parse_overrides(overrides or ())),
        batch=batch,
        tokens=tokens,
    )
    if json:
        print_json({"bytes": asdict(plan), "peak": plan.peak})
        return
    table = new_table("what", "bytes")
    for name, count in asdict(plan).items():
        table.add_row(MEMORY_PARTS[name], size(count))
    table.add_row("peak", size(plan.peak), style="bold")
    console().print(table)
