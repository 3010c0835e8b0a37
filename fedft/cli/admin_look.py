"""``fedft admin metrics|logs|config|schema``: what a server knows, beyond its runs and clients."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedft.cli.admin import Last, Run, ask
from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import cell, console, new_table, print_json

if TYPE_CHECKING:
    from fedft.server.admin import answers

commands = typer.Typer()
config_commands = typer.Typer(no_args_is_help=True, help="Try configurations against the server.")
commands.add_typer(config_commands, name="config")


def register(admin: typer.Typer) -> None:
    """Add the commands to those of ``fedft admin``."""
    admin.add_typer(commands)


@commands.command(epilog=examples("fedft admin metrics latest", "fedft admin metrics latest --json"))
def metrics(
    run: Run = "latest",
    groups: Annotated[bool, typer.Option("--groups", help="Every group of the test records too.")] = False,
    json: Json = False,
) -> None:
    """Show what was measured in every evaluated round."""
    from fedft.server.admin import answers

    found = ask(answers.RunDetail, "ShowRun", "RunRequest", run=run)
    rows = [
        {"round": record.round, **asdict(evaluation)}
        for record in found.committed
        for evaluation in record.evaluations
        if groups or not evaluation.group
    ]
    if json:
        print_json({"run": found.id, "evaluations": rows})
        return
    names = sorted({name for row in rows for name in row["metrics"]})
    table = new_table("round", "on", "group", "examples", *names, left=("on", "group"))
    for row in rows:
        values = (_number(row["metrics"].get(name)) for name in names)
        examples_ = str(row["num_examples"])
        table.add_row(str(row["round"]), cell(row["scope"]), cell(row["group"] or "all"), examples_, *values)
    console().print(table)


@commands.command(epilog=examples("fedft admin logs latest --last 50"))
def logs(run: Run = "latest", last: Last = 50, json: Json = False) -> None:
    """Show a run's events and what the link refused meanwhile, in the order of time."""
    from fedft.server.admin import answers

    found = ask(answers.RunDetail, "ShowRun", "RunRequest", run=run)
    refused = ask(answers.Incidents, "ReadIncidents", "IncidentsRequest", last=0).incidents
    events = found.events + [_event(item) for item in refused if item.time >= found.created_at]
    shown = sorted(events, key=lambda event: event.time)[-last:]
    if json:
        print_json({"run": found.id, "events": [event.model_dump() for event in shown]})
        return
    if not shown:
        console().print(cell(f"{found.id}: nothing out of the ordinary happened"))
    for event in shown:
        line = f"{event.time[:19]}  {event.kind}  {event.message}"
        console().print(cell(line), soft_wrap=True)


@config_commands.command(epilog=examples("fedft admin config validate my.toml --set rounds.total=3"))
def validate(
    config: Annotated[str, typer.Argument(help="A TOML file, or [bold]demo[/].")],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Find mistakes, and try the model and the records that the server itself needs, without starting."""
    from fedft.config import load_config, parse_overrides
    from fedft.config.load import to_json
    from fedft.server.admin import answers

    checked = load_config(config, parse_overrides(overrides or ()))
    found = ask(answers.ConfigCheck, "ValidateConfig", "StartRunRequest", config_json=to_json(checked))
    if json:
        print_json({"valid": True, **found.model_dump(exclude_none=True)})
        return
    facts = ", ".join(
        f"{key.replace('_', ' ')} {value}" for key, value in found if key != "name" and value is not None
    )
    console().print("[green]valid[/]", cell(f"{found.name}: {facts}"))


@commands.command(epilog=examples("fedft admin schema ShowRun"))
def schema(
    method: Annotated[str, typer.Argument(help="A method of the admin service.")] = "",
) -> None:
    """Print the JSON Schema of a method's answer, which --json prints; without METHOD, their names."""
    from fedft.server.admin import answers

    if method in answers.ANSWERS:
        print(json_.dumps(answers.ANSWERS[method].model_json_schema(), indent=2))
    elif method:
        raise typer.BadParameter(f"no method is called {method!r}; there are {', '.join(answers.ANSWERS)}")
    else:
        console().print("\n".join(answers.ANSWERS))


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"


def _event(item: answers.Incident) -> answers.RunEvent:
    from fedft.server.admin import answers

    who = item.member or "somebody unknown"
    return answers.RunEvent(time=item.time, kind=item.code, message=f"{who}: {item.message}")
