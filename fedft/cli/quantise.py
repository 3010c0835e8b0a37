"""``fedft quantise``: a base model in 4 bits, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import console, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("fedft quantise run.toml base-nf4/", "fedft quantise demo demo-nf4/ --json"))(
        quantise
    )


def quantise(
    source: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A TOML file, or [bold]demo[/]: whose base model to write."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.", file_okay=False)],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Write the base model of a configuration with its linear layers in NF4.

    A run with [bold]model.quant = "nf4"[/] starts from this folder as from the
    full-precision one, with the same digest.
    """
    from fedft.config.load import load_config, parse_overrides
    from fedft.models.load import load_base
    from fedft.models.quantised import save_nf4

    config = load_config(source, parse_overrides(overrides or ()) | {"model.quant": "nf4"})
    base = load_base(config.model, config.task, config.seed)
    save_nf4(base.model, base.tokenizer, out, base.head)
    if json:
        print_json({"path": str(out.absolute()), "base_digest": base.digest})
    else:
        console().print(f"[bold]{out}[/], base digest {base.digest}", soft_wrap=True)
