"""The ``fedft`` command."""

from __future__ import annotations

from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

import fedft
from fedft.cli import (
    admin,
    admin_look,
    client,
    codec,
    config,
    doctor,
    export,
    plan,
    privacy,
    quantise,
    report,
    runs,
    server,
    simulate,
)
from fedft.cli.arguments import examples
from fedft.cli.output import INTERRUPTED, error_console, exit_code, print_error
from fedft.errors import FedftError

# Command modules import torch, flwr and the store inside their functions: help has to be instant.

_EMPTY = "[dim][/]"
_EPILOG = "\n\n".join(
    [
        examples("fedft demo", "fedft config init my.toml", "fedft simulate my.toml", "fedft report latest"),
        _EMPTY,
        "[bold]Exit codes[/]",
        "0 done · 1 failed · 2 mistake in the command line or the configuration · 3 server not reached · "
        "4 not allowed · 130 interrupted",
        "Every error has a code such as FEDFT-1003; docs/errors.md lists them all.",
    ]
)


class _Root(TyperGroup):
    """Turns errors into a message with a code and an exit status, for every command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FedftError as error:
            print_error(error)
            raise typer.Exit(exit_code(error)) from error
        except KeyboardInterrupt as error:
            error_console().print("interrupted", style="yellow")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=_Root,
    name="fedft",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fedft {fedft.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Private federated fine-tuning of language models with exactly averaged square adapters."""


simulate.register(app)
runs.register(app)
report.register(app)
export.register(app)
codec.register(app)
config.register(app)
privacy.register(app)
server.register(app)
client.register(app)
admin_look.register(admin.commands)
admin.register(app)
plan.register(app)
quantise.register(app)
doctor.register(app)


def main() -> None:
    """Run the command line."""
    app(prog_name="fedft")
