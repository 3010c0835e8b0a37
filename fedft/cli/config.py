"""``fedft config``: write, check and show a run's configuration."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import OK, USAGE, cell, console, print_json
from fedft.errors import Code, FedftError

commands = typer.Typer(no_args_is_help=True, help="Write, check and show a run's configuration.")


class Template(StrEnum):
    """Configurations to start from."""

    demo = "demo"
    sst2 = "sst2"
    minimal = "minimal"
    private = "private"


Source = Annotated[str, typer.Argument(help="A TOML file, or [bold]demo[/] for the bundled one.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="config")


@commands.command(
    epilog=examples(
        "fedft config init my.toml",
        "fedft config init sentiment.toml --template sst2",
        "fedft config init --private --labels no,yes --epsilon 3 --examples 2300",
        "fedft config init - --template demo | less",
    )
)
def init(
    path: Annotated[Path, typer.Argument(help="File to write; - for standard output.")] = Path("fedft.toml"),
    template: Annotated[Template, typer.Option(help="What to start from.")] = Template.minimal,
    private: Annotated[bool, typer.Option("--private", help="The template for a private run.")] = False,
    labels: Annotated[str, typer.Option(help="Class names, a,b,c (private).")] = "",
    epsilon: Annotated[float, typer.Option(min=0, help="Most that the run may cost (private).")] = 0.0,
    size: Annotated[
        int,
        typer.Option("--examples", min=0, help="Records of a client: rates and steps are written (private)."),
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a configuration to start from, every key with its meaning, range and default.

    [bold]minimal[/] has the few keys that nearly every run sets, [bold]private[/]
    those of private classification, whose rates and steps follow from labels, epsilon and
    the number of records, when the run starts or with --examples here; [bold]demo[/] and
    [bold]sst2[/] have every key.
    """
    from fedft.config.templates import template as render

    chosen = Template.private if private else template
    asked = {"task.labels": labels, "privacy.epsilon": epsilon}
    changes: dict[str, Any] = {key: value for key, value in asked.items() if value}
    if (changes or size) and chosen is not Template.private:
        raise typer.BadParameter("--labels, --epsilon and --examples go with --private")
    if size:
        changes |= _proposed(changes, size)
    text = render(chosen.value, str(path) if str(path) != "-" else "FILE", changes)
    if str(path) == "-":
        print(text, end="")
        return
    _write(path, text, force)
    console().print(f"wrote [bold]{path}[/]; edit it, then: fedft config validate {path}", soft_wrap=True)


def _proposed(changes: dict[str, Any], size: int) -> dict[str, Any]:
    import tomllib

    from fedft.config.load import check
    from fedft.config.templates import template
    from fedft.training.proposal import propose

    config = check(tomllib.loads(template("private", changes=changes)))
    return propose(config, examples=size, parameters=0).settings


@commands.command(
    epilog=examples(
        "fedft config validate my.toml",
        "fedft config validate my.toml --set adapter.rank=32 --set training.epochs=2",
    )
)
def validate(
    source: Source,
    overrides: Overrides = None,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="The training records lie at the sites, not here.")
    ] = False,
    json: Json = False,
) -> None:
    """Find every mistake of a configuration at once, before anything is loaded.

    Files that it names must be there; ids of a hub are not looked up.
    """
    from fedft.config.load import check, parse_overrides, read_table
    from fedft.config.validation import validate
    from fedft.simulation.sources import missing_sources

    table = read_table(source, parse_overrides(overrides or ()))
    config, mistakes = validate(table)
    if config is not None:
        mistakes = missing_sources(config, deployed=deployed)
    if json:
        listed = [{"path": item.path, "message": item.message} for item in mistakes]
        print_json({"valid": not mistakes, "mistakes": listed})
        raise typer.Exit(USAGE if mistakes else OK)
    config = check(table)
    if mistakes:
        raise FedftError(
            Code.CONFIG_INVALID,
            "the configuration names what is not here:" + "".join(f"\n  {item}" for item in mistakes),
            hint="correct the paths" + ("" if deployed else "; with --deployed the sites have the records"),
        )
    clients, rounds = config.data.partition.clients, config.rounds.total
    words = f"{clients} clients, {rounds} rounds, model {config.model.source}"
    console().print("[green]valid[/]", cell(f"{source}: {words}"))


@commands.command(
    epilog=examples(
        "fedft config show my.toml",
        "fedft config show demo --set rounds.total=2 --json",
        "fedft config show my.toml > effective.toml",
    )
)
def show(source: Source, overrides: Overrides = None, json: Json = False) -> None:
    """Print the effective configuration: every key, defaults and overrides included."""
    from fedft.config.load import load_config, parse_overrides
    from fedft.config.render import to_toml

    config = load_config(source, parse_overrides(overrides or ()))
    if json:
        print_json({"config": config.model_dump(mode="json")})
    else:
        print(to_toml(config, comments=False), end="")


def _write(path: Path, text: str, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FedftError(
            Code.CONFIG_EXISTS,
            f"{path} exists already",
            hint="name another file, or overwrite it with --force",
        ) from None
    except OSError as error:
        raise FedftError(Code.CONFIG_NOT_WRITABLE, f"cannot write {path}: {error.strerror}") from error
