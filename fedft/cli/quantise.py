"""``fedft quantise``: a base model in 4 bits, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import console, print_json
from fedft.registries import QUANT


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples("fedft quantise run.toml base-nf4/", "fedft quantise demo demo-int8/ --format int8")
    )(quantise)


def quantise(
    source: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A TOML file, or [bold]demo[/]: whose base model to write."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.", file_okay=False)],
    format: Annotated[str, typer.Option(help=f"How to store the weights: {', '.join(QUANT)}.")] = "nf4",
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Write the base model of a configuration with its linear layers quantised.

    A run whose [bold]model.quant[/] is that format starts from this folder as from the
    full-precision one, with the same digest.
    """
    from fedft.config.load import load_config, parse_overrides
    from fedft.models.load import load_base
    from fedft.models.quantised import save_stored

    config = load_config(source, parse_overrides(overrides or ()) | {"model.quant": format})
    base = load_base(config.model, config.task, config.seed)
    save_stored(base.model, base.tokenizer, out, base.head)
    if json:
        print_json({"path": str(out.absolute()), "base_digest": base.digest})
    else:
        console().print(f"[bold]{out}[/], base digest {base.digest}", soft_wrap=True)
