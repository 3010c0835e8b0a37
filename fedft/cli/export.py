"""``fedft evaluate`` and ``fedft export``: what to do with a finished run's adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedft.cli.arguments import DEFAULT_STORE, Json, Round, Run, Store, examples
from fedft.cli.output import cell, console, new_table, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from fedft.store import EvaluationRecord, RunRecord, RunStore

commands = typer.Typer(no_args_is_help=True, help="Write a run's adapter for other tools.")

Out = Annotated[Path, typer.Argument(help="Folder to write.", file_okay=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=examples("fedft evaluate latest", "fedft evaluate sst2-2025 --round 3 --data more.tsv --json")
    )(evaluate)
    app.add_typer(commands, name="export")


def evaluate(
    run: Run = "latest",
    round: Round = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Records in place of the run's test records: a file, folder or hub id."),
    ] = None,
    store: Store = DEFAULT_STORE,
    json: Json = False,
) -> None:
    """Evaluate a committed state again, on the run's test records or on others."""
    from fedft.simulation.checkpoints import evaluate_run

    kept, record, number = _open(store, run, round)
    found = evaluate_run(kept, record, number, data)
    if json:
        print_json({"run": record.id, "round": number, "evaluations": [asdict(item) for item in found]})
        return
    console().print(f"{record.id}, after round {number}")
    console().print(_evaluation_table(found))


@commands.command(
    epilog=examples("fedft export peft latest adapter/", "fedft export peft sst2-2025 adapter/ --round 3")
)
def peft(run: Run, out: Out, round: Round = None, store: Store = DEFAULT_STORE, json: Json = False) -> None:
    """Write the adapter in the LoRA format that PEFT loads."""
    _export("peft", run, out, round, store, json)


@commands.command(epilog=examples("fedft export merged latest model/"))
def merged(run: Run, out: Out, round: Round = None, store: Store = DEFAULT_STORE, json: Json = False) -> None:
    """Write the base model with the adapter merged into its weights (float32)."""
    _export("merged", run, out, round, store, json)


def _export(
    kind: Literal["peft", "merged"], run: str, out: Path, round: int | None, store: Path, json: bool
) -> None:
    from fedft.simulation.checkpoints import export_run

    kept, record, number = _open(store, run, round)
    export_run(kept, record, out, kind, number)
    if json:
        print_json({"run": record.id, "round": number, "format": kind, "path": str(out.absolute())})
    else:
        console().print(f"{record.id}, after round {number}: [bold]{out}[/]", soft_wrap=True)


def _open(store: Path, run: str, round: int | None) -> tuple[RunStore, RunRecord, int]:
    from fedft.store import RunStore

    kept = RunStore(store, create=False)
    record = kept.run(run)
    return kept, record, record.rounds if round is None else round


def _evaluation_table(found: list[EvaluationRecord]) -> Table:
    from fedft.report.format import metric_name, metric_value

    metrics = list(dict.fromkeys(name for item in found for name in item.metrics))
    table = new_table("group", "examples", *(metric_name(name) for name in metrics))
    for item in found:
        values = [metric_value(name, item.metrics.get(name)) for name in metrics]
        table.add_row(
            cell(item.group or "all"), str(item.num_examples), *values, style="" if item.group else "bold"
        )
    return table
