"""``fedft runs``: what the store knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedft.cli.arguments import DEFAULT_STORE, Json, Run, Store, examples
from fedft.cli.output import cell, console, new_table, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from fedft.store import RoundRecord, RunRecord

commands = typer.Typer(no_args_is_help=True, help="List runs and show what happened in them.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="runs")


@commands.command(
    name="list", epilog=examples("fedft runs list", "fedft runs list --store /data/runs --json")
)
def list_runs(store: Store = DEFAULT_STORE, json: Json = False) -> None:
    """List the runs of a store, oldest first."""
    from fedft.store import RunStore

    runs = RunStore(store, create=False).runs()
    if json:
        print_json({"runs": [_run_facts(run) for run in runs]})
        return
    if not runs:
        console().print(f"no runs in {store} yet; start one with: fedft demo")
        return
    console().print(_runs_table(runs))


@commands.command(
    epilog=examples("fedft runs show latest", "fedft runs show sst2-2025 --json | jq .committed[-1].bytes")
)
def show(run: Run = "latest", store: Store = DEFAULT_STORE, json: Json = False) -> None:
    """Show a run: quality, clients, bytes and time of every round, and what was refused."""
    from fedft.store import RunStore

    kept = RunStore(store, create=False)
    record = kept.run(run)
    rounds = kept.rounds(record.id)
    if json:
        from fedft.cli.summary import run_as_dict

        print_json(run_as_dict(record, rounds) | {"events": kept.events(record.id)})
        return
    _print_run(record, rounds)
    _print_events(kept.events(record.id))


@commands.command(epilog=examples("fedft runs rollback latest --round 12"))
def rollback(
    run: Run,
    round_number: Annotated[int, typer.Option("--round", min=0, help="The last round that shall stand.")],
    store: Store = DEFAULT_STORE,
    json: Json = False,
) -> None:
    """Take back the rounds after a committed one; resuming the run goes on from there."""
    from fedft.store import RunStore

    kept = RunStore(store, create=False)
    record = kept.roll_back(kept.run(run).id, round_number)
    if json:
        print_json(_run_facts(record))
    else:
        console().print(cell(f"{record.id} stands at round {record.rounds}"))


@commands.command(
    name="rm", epilog=examples("fedft runs rm latest", "fedft runs rm demo-2026 --yes --store /data/runs")
)
def remove(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or the beginning of one.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: Store = DEFAULT_STORE,
    json: Json = False,
) -> None:
    """Delete a run: its rounds, its states, and what its simulated clients kept for it.

    What rounds have cost of privacy budgets stays in the ledgers.
    """
    from fedft.simulation.removal import remove_run
    from fedft.store import RunStore

    kept = RunStore(store, create=False)
    record = kept.run(run)
    if not yes and not json:
        typer.confirm(f"delete {record.id} with its {record.rounds} rounds?", abort=True)
    remove_run(kept, record.id)
    if json:
        print_json({"removed": record.id})
    else:
        console().print(cell(f"{record.id} is deleted"))


def _run_facts(run: RunRecord) -> dict[str, Any]:
    names = (
        "id",
        "name",
        "status",
        "rounds",
        "created_at",
        "final_digest",
        "error",
        "version",
        "total_rounds",
    )
    return {name: getattr(run, name) for name in names}


def _runs_table(runs: list[RunRecord]) -> Table:
    from fedft.cli.summary import styled_status
    from fedft.report.format import moment

    table = new_table("run", "status", "rounds", "started (UTC)", "final state", left=("status",))
    for run in runs:
        rounds = f"{run.rounds}/{run.total_rounds}"
        digest = run.final_digest[:12] or "–"
        table.add_row(cell(run.id, "bold"), styled_status(run.status), rounds, moment(run.created_at), digest)
    return table


def _print_run(run: RunRecord, rounds: list[RoundRecord]) -> None:
    from fedft.cli.summary import (
        averaging_line,
        comparison_table,
        privacy_table,
        quality_table,
        robust_line,
        styled_status,
        time_line,
        traffic_line,
    )
    from fedft.report.format import moment

    out = console()
    out.print(cell(run.id, "bold"), styled_status(run.status), f" started {moment(run.created_at)} UTC")
    if run.error:
        out.print(cell(run.error, "red"))
    for name in ("final", "base", "frame"):
        digest = getattr(run, f"{name}_digest")
        if digest:
            out.print(f"{name:5} {digest}", style="dim")
    if not rounds:
        out.print("no round is committed yet")
        return
    out.print(f"bytes {traffic_line(rounds)}")
    if line := averaging_line(rounds):
        out.print(f"averaging {line}")
    if line := robust_line(rounds):
        out.print(f"robust aggregation: {line}")
    out.print(f"time  {time_line(rounds)}")
    quality = (_rounds_table(rounds), quality_table(rounds), comparison_table(rounds))
    for table in (*quality, privacy_table(rounds), _seconds_table(rounds), _setbacks_table(rounds)):
        if table is not None:
            out.print()
            out.print(table)


def _rounds_table(rounds: list[RoundRecord]) -> Table:
    from fedft.report import facts
    from fedft.report.format import metric_name, metric_value, size

    metrics = facts.leading_metrics(rounds)
    names = [metric_name(metric) for metric in metrics]
    table = new_table("round", *names, "accepted", "other", "up", "down", "setup", left=("other",))
    for record in rounds:
        sent = facts.traffic(record.updates)
        table.add_row(
            str(record.round),
            *(metric_value(name, facts.value_of(record.evaluations, name)) for name in metrics),
            _accepted(record),
            _others(record),
            *(size(count) if count else "–" for count in (sent.up, sent.down, sent.setup)),
        )
    return table


def _seconds_table(rounds: list[RoundRecord]) -> Table:
    from fedft.report import facts
    from fedft.report.format import duration

    phases = facts.phases_of(rounds)
    table = new_table("round", "time", *phases)
    for record in rounds:
        shares = (duration(record.phases[phase]) if phase in record.phases else "–" for phase in phases)
        table.add_row(str(record.round), duration(record.seconds), *shares)
    return table


def _accepted(record: RoundRecord) -> str:
    accepted = sum(update.status == "accepted" for update in record.updates)
    return f"{accepted}/{len(record.updates)}" if record.updates else "–"


def _others(record: RoundRecord) -> str:
    from fedft.cli.watch import describe_others
    from fedft.report import facts

    return describe_others(facts.statuses(record.updates))


def _setbacks_table(rounds: list[RoundRecord]) -> Table | None:
    from fedft.cli.summary import styled_status
    from fedft.report import facts

    found = facts.setbacks(rounds)
    if not found:
        return None
    table = new_table(
        "what", "code", "reason", "clients and rounds", left=("code", "reason", "clients and rounds")
    )
    for item in found:
        whom = ", ".join(f"{client} in {number}" for client, number in item.met[:8])
        more = f" and {len(item.met) - 8} more" if len(item.met) > 8 else ""
        table.add_row(styled_status(item.status), cell(item.code), cell(item.message), cell(whom + more))
    return table


def _print_events(events: list[dict[str, Any]]) -> None:
    from fedft.report.format import moment

    if not events:
        return
    table = new_table("time (UTC)", "event", "what happened", left=("event", "what happened"))
    for event in events:
        table.add_row(moment(event["time"]), cell(event["kind"]), cell(event["message"]))
    out = console()
    out.print()
    out.print(table)
