"""``fedft admin``: operating a server from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import cell, console, new_table, print_json

if TYPE_CHECKING:
    from fedft.server.admin import answers
    from fedft.server.admin.client import AdminClient

A = TypeVar("A", bound="answers.Answer")

commands = typer.Typer(no_args_is_help=True, help="Operate a server: clients, runs, rounds, logs.")
clients = typer.Typer(no_args_is_help=True, help="Enroll, revoke and look at sites and operators.")
runs = typer.Typer(no_args_is_help=True, help="Start, watch, pause and stop runs.")
rounds = typer.Typer(no_args_is_help=True, help="Look at committed rounds.")
commands.add_typer(clients, name="clients")
commands.add_typer(runs, name="runs")
commands.add_typer(rounds, name="rounds")

Run = Annotated[str, typer.Argument(help="A run's id, a unique beginning of one, or [bold]latest[/].")]
RoundNumber = Annotated[int, typer.Option("--round", min=0, help="The last round that shall stand.")]
Last = Annotated[int, typer.Option("--last", min=0, help="The last so many; 0 for all.")]
_folder = Path("admin")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="admin")


@commands.callback()
def root(
    admin: Annotated[
        Path,
        typer.Option("--admin", envvar="FEDFT_ADMIN", help="The operator's folder.", file_okay=False),
    ] = Path("admin"),
) -> None:
    """Operate a server: clients, runs, rounds, logs."""
    global _folder
    _folder = admin


@contextmanager
def _server() -> Iterator[AdminClient]:
    from fedft.server.admin.client import AdminClient

    client = AdminClient(_folder)
    try:
        yield client
    finally:
        client.close()


def ask(answer: type[A], method: str, kind: str, /, **fields: Any) -> A:
    """Ask the server; ``kind`` names the request's message, ``fields`` fill it."""
    from fedft.wire.v1 import admin_pb2 as pb

    with _server() as server:
        return server.ask(answer, method, getattr(pb, kind)(**fields))


@commands.command(epilog=examples("fedft admin join join.json --name alice"))
def join(
    bundle: Annotated[Path, typer.Argument(help="join.json of the server.", dir_okay=False, exists=True)],
    name: Annotated[str, typer.Option("--name", help="The operator's name.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="A new folder; without it, the name.", file_okay=False)
    ] = None,
    json: Json = False,
) -> None:
    """Make a further operator's keys and a request that an operator enrolls with --role."""
    from fedft.identity.documents import ServerBundle
    from fedft.identity.names import checked_member_name
    from fedft.identity.site_files import make_identity, write_admin_file

    server = ServerBundle.from_json(bundle.read_text("utf-8"))
    place = folder or Path(checked_member_name(name))
    request = make_identity(place, name, server)
    write_admin_file(place, server.admin_address)
    if json:
        print_json({"folder": str(place), "request": str(request)})
    else:
        console().print(f"send to an operator   {request}\nput the answer into   {place}/certificate.pem")


# -- server ------------------------------------------------------------------------------------------------


@commands.command(epilog=examples("fedft admin health --json"))
def health(json: Json = False) -> None:
    """Say whether the server is well, who is connected and what it is doing."""
    from fedft.server.admin import answers

    found = ask(answers.Health, "Health", "HealthRequest")
    if json:
        _print(found)
    else:
        connected = ", ".join(found.connected) or "nobody"
        _print_facts({**dict(found), "connected": connected, "up_seconds": f"{found.up_seconds:.0f}"})
    if found.status != "ok":
        raise typer.Exit(1)


@commands.command(name="audit-log", epilog=examples("fedft admin audit-log --last 20"))
def audit_log(last: Last = 50, json: Json = False) -> None:
    """Show who changed what and when; the server verifies the whole log first."""
    from fedft.server.admin import answers

    found = ask(answers.AuditLogEntries, "ReadAuditLog", "AuditRequest", last=last)
    if json:
        _print(found)
        return
    table = new_table(
        "#", "time (UTC)", "who", "what", "details", left=("time (UTC)", "who", "what", "details")
    )
    shown = ("sequence", "time", "who", "what", "digest", "request")
    for entry in found.entries:
        details = ", ".join(f"{key} {value}" for key, value in entry.items() if key not in shown)
        cells = (cell(str(entry[name])) for name in ("time", "who", "what"))
        table.add_row(str(entry["sequence"]), *cells, cell(details))
    console().print(table)


@commands.command(epilog=examples("fedft admin incidents --last 20"))
def incidents(last: Last = 50, json: Json = False) -> None:
    """Show what was refused at the link: forged or oversized replies, second daemons, full disks."""
    from fedft.server.admin import answers

    found = ask(answers.Incidents, "ReadIncidents", "IncidentsRequest", last=last)
    if json:
        _print(found)
        return
    table = new_table(
        "time (UTC)", "member", "code", "what happened", left=("member", "code", "what happened")
    )
    for item in found.incidents:
        table.add_row(*map(cell, (item.time, item.member, item.code, item.message)))
    console().print(table)


@commands.command(
    epilog=examples(
        "fedft admin export peft latest adapter/", "fedft admin export merged RUN model/ --round 3"
    )
)
def export(
    kind: Annotated[str, typer.Argument(help="[bold]peft[/] or [bold]merged[/].")],
    run: Run,
    out: Annotated[Path, typer.Argument(help="A new folder.", file_okay=False)],
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="Of this round; else the last.")
    ] = None,
    json: Json = False,
) -> None:
    """Fetch the adapter of a round for PEFT, or the model with the adapter merged in."""
    from fedft.wire.v1 import admin_pb2 as pb

    with _server() as server:
        server.export(pb.ExportRequest(run=run, round=round_number, kind=kind), out)
    if json:
        print_json({"folder": str(out)})
    else:
        console().print(f"wrote [bold]{out}[/]")


@commands.command(epilog=examples("fedft admin budget", "fedft admin budget RUN --json"))
def budget(run: Run = "latest", json: Json = False) -> None:
    """Show what each site has spent in a private run, as it stated it; exit 1 when a budget is spent.

    A site's own ledger has the whole of it, over all runs: fedft privacy ledger show.
    """
    from dataclasses import asdict

    from fedft.cli.summary import privacy_table
    from fedft.report.spending import spending
    from fedft.server.admin import answers

    found = ask(answers.RunDetail, "ShowRun", "RunRequest", run=run)
    rows, table = spending(found.committed), privacy_table(found.committed)
    if json:
        print_json({"run": found.id, "privacy": [asdict(row) for row in rows]})
    else:
        console().print(table or cell(f"{found.id}: no client has stated anything about privacy"))
    if any(row.spent_in for row in rows):
        raise typer.Exit(1)


# -- clients -----------------------------------------------------------------------------------------------


@clients.command(name="list", epilog=examples("fedft admin clients list"))
def list_clients(json: Json = False) -> None:
    """List everyone who is or was enrolled, and who is connected."""
    from fedft.server.admin import answers

    found = ask(answers.Members, "ListClients", "ListClientsRequest")
    if json:
        _print(found)
        return
    table = new_table(
        "name",
        "role",
        "state",
        "key",
        "enrolled",
        "expires",
        left=("role", "state", "key", "enrolled", "expires"),
    )
    for item in found.clients:
        key, since, until = item.fingerprint[:16], item.enrolled_at[:10], item.expires_at[:10]
        table.add_row(cell(item.name), item.role, _state(item), key, since, until)
    console().print(table)


@clients.command(epilog=examples("fedft admin clients show hospital-a"))
def show(name: Annotated[str, typer.Argument(help="The enrolled name.")], json: Json = False) -> None:
    """Show one member: key, connection, part in the last rounds, incidents."""
    from fedft.server.admin import answers

    found = ask(answers.MemberDetail, "ShowClient", "ClientRequest", name=name)
    if json:
        _print(found)
        return
    _print_facts(_scalars(found) | (dict(found.connection) if found.connection else {}))
    if found.rounds:
        table = new_table(
            "run", "round", "status", "seconds", "code", "message", left=("status", "code", "message")
        )
        for part in found.rounds:
            update = part.update
            named = (cell(update.code), cell(update.message))
            table.add_row(cell(part.run), str(part.round), update.status, f"{update.seconds:.2f}", *named)
        console().print(table)
    for item in found.incidents:
        console().print(cell(f"{item.time}  {item.code}  {item.message}"), soft_wrap=True)


@clients.command(epilog=examples("fedft admin clients enroll a/request.json b/request.json"))
def enroll(
    requests: Annotated[
        list[Path], typer.Argument(help="request.json of each site.", exists=True, dir_okay=False)
    ],
    role: Annotated[str, typer.Option("--role", help="client, viewer or operator; else as before.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Revoke the key that has the name now.")] = False,
    json: Json = False,
) -> None:
    """Enroll sites; each certificate is written beside its request, for the site to keep.

    Make sure that a request comes from whom it says: compare its key over the telephone.
    Enrolling the same request again renews its certificate.
    """
    from fedft.files import write_atomically
    from fedft.server.admin import answers

    for path in requests:
        text = path.read_text("utf-8")
        found = ask(answers.Enrolled, "Enroll", "EnrollRequest", request=text, role=role, replace=replace)
        out = path.parent / "certificate.pem"
        write_atomically(out, found.certificate.encode())
        if json:
            print_json({**found.model_dump(), "written": str(out)})
        else:
            key = found.fingerprint[:16]
            line = f"{found.name} is enrolled as {found.role}, key {key}…, wrote {out}"
            console().print(cell(line), soft_wrap=True)


@clients.command(epilog=examples('fedft admin clients revoke hospital-a --reason "laptop stolen"'))
def revoke(
    name: Annotated[str, typer.Argument(help="The enrolled name.")],
    reason: Annotated[str, typer.Option("--reason", help="For the audit log, and told to the site.")] = "",
    json: Json = False,
) -> None:
    """Take a key back at once: its connection ends and every later call is refused."""
    from fedft.server.admin import answers

    found = ask(answers.MemberState, "RevokeClient", "RevokeRequest", name=name, reason=reason)
    _print(found) if json else console().print(cell(f"{name} is revoked"))


# -- runs --------------------------------------------------------------------------------------------------


@runs.command(
    epilog=examples("fedft admin runs start my.toml", "fedft admin runs start demo --set rounds.total=3")
)
def start(
    config: Annotated[str, typer.Argument(help="A TOML file, or [bold]demo[/].")],
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch it to its end.")] = False,
    json: Json = False,
) -> None:
    """Start a run; paths in the configuration are the server's, each site has its own data and model."""
    from fedft.config import load_config, parse_overrides
    from fedft.config.load import to_json
    from fedft.server.admin import answers

    checked = load_config(config, parse_overrides(overrides or ()))
    found = ask(answers.RunState, "StartRun", "StartRunRequest", config_json=to_json(checked))
    if not watch:
        _print_run_line(found, json=json)
        return
    watch_run(found.id, json=json)


@runs.command(name="list", epilog=examples("fedft admin runs list"))
def list_runs(json: Json = False) -> None:
    """List the server's runs, oldest first."""
    from fedft.server.admin import answers

    found = ask(answers.Runs, "ListRuns", "ListRunsRequest")
    if json:
        _print(found)
        return
    table = new_table("run", "state", "rounds", "final state", "error", left=("state", "error"))
    for run in found.runs:
        done = f"{run.rounds}/{run.total_rounds}"
        table.add_row(cell(run.id, "bold"), run.state, done, run.final_digest[:12] or "–", cell(run.error))
    console().print(table)


@runs.command(name="show", epilog=examples("fedft admin runs show latest"))
def show_run(run: Run = "latest", json: Json = False) -> None:
    """Show a run's rounds and events."""
    from fedft.server.admin import answers

    found = ask(answers.RunDetail, "ShowRun", "RunRequest", run=run)
    if json:
        _print(found)
        return
    _print_facts(_scalars(found))
    _print_rounds(found)
    for event in found.events[-20:]:
        console().print(cell(f"{event.time[:19]}  {event.kind}  {event.message}", "dim"), soft_wrap=True)


@runs.command(name="watch", epilog=examples("fedft admin runs watch latest"))
def watch_run(run: Run = "latest", json: Json = False) -> None:
    """Watch a run live until it ends; exit 1 unless it is complete. Ctrl-C leaves it running."""
    from fedft.cli.progress import choose_observer
    from fedft.coordinator.events import RoundCommitted, RunStarted
    from fedft.server.admin import answers

    with _server() as server:
        first, happenings = server.watch(run)
        last: answers.RunState = first
        with choose_observer(console(), json=json, quiet=False, earlier=first.committed) as observer:
            observer(RunStarted(first.id, first.name, first.rounds + 1, first.total_rounds))
            for event in happenings:
                if isinstance(event, answers.RunState):
                    last = event
                    break
                known = isinstance(event, RoundCommitted) and event.record.round <= observer.watch.committed
                if not known and not isinstance(event, RunStarted):
                    observer(event)
    _print_run_line(last, json=json)
    if last.state != "completed":
        raise typer.Exit(1)


def _turn(method: str, run: str, *, json: bool) -> None:
    from fedft.server.admin import answers

    _print_run_line(ask(answers.RunState, method, "RunRequest", run=run), json=json)


@runs.command(epilog=examples("fedft admin runs pause latest"))
def pause(run: Run, json: Json = False) -> None:
    """Interrupt a run; its committed rounds stay."""
    _turn("PauseRun", run, json=json)


@runs.command(epilog=examples("fedft admin runs resume latest"))
def resume(run: Run, json: Json = False) -> None:
    """Go on with a run that was paused or has failed."""
    _turn("ResumeRun", run, json=json)


@runs.command(epilog=examples("fedft admin runs stop latest"))
def stop(run: Run, json: Json = False) -> None:
    """End a run for good; its committed rounds stay and can be exported."""
    _turn("StopRun", run, json=json)


@runs.command(epilog=examples("fedft admin runs rollback latest --round 12"))
def rollback(run: Run, round_number: RoundNumber, json: Json = False) -> None:
    """Take back the rounds after a committed one of a paused run; resume goes on from there."""
    from fedft.server.admin import answers

    found = ask(answers.RunState, "RollBackRun", "RoundRequest", run=run, round=round_number)
    _print_run_line(found, json=json)


# -- rounds ------------------------------------------------------------------------------------------------


@rounds.command(name="list", epilog=examples("fedft admin rounds list latest"))
def list_rounds(run: Run = "latest", json: Json = False) -> None:
    """List the committed rounds of a run."""
    from fedft.server.admin import answers

    found = ask(answers.RunDetail, "ShowRun", "RunRequest", run=run)
    if json:
        print_json({"run": found.id, "rounds": found.model_dump()["committed"]})
        return
    _print_rounds(found)


@rounds.command(name="show", epilog=examples("fedft admin rounds show latest --round 3"))
def show_round(
    run: Run = "latest",
    round_number: Annotated[int | None, typer.Option("--round", min=0, help="Without it, the last.")] = None,
    json: Json = False,
) -> None:
    """Show each client's part in a round."""
    from fedft.server.admin import answers

    found = ask(answers.RoundDetail, "ShowRound", "RoundRequest", run=run, round=round_number)
    if json:
        _print(found)
        return
    from fedft.report.format import size

    console().print(
        cell(f"round {found.record.round} of {found.run}, state {found.record.state_digest}"), soft_wrap=True
    )
    table = new_table(
        "client",
        "status",
        "examples",
        "up",
        "down",
        "seconds",
        "code",
        "reason",
        left=("status", "code", "reason"),
    )
    for part in found.record.updates:
        sent = (size(part.bytes_up), size(part.bytes_down + part.bytes_setup))
        words = (cell(part.code), cell(part.message))
        numbers = (str(part.num_examples), *sent, f"{part.seconds:.2f}")
        table.add_row(cell(part.client), part.status, *numbers, *words)
    console().print(table)


# -- printing ----------------------------------------------------------------------------------------------


def _print_facts(facts: dict[str, Any]) -> None:
    table = new_table("", "", left=("",))
    for name, value in facts.items():
        if value not in ("", None):
            table.add_row(name.replace("_", " "), cell(str(value)))
    console().print(table)


def _print(found: answers.Answer) -> None:
    print_json(found.model_dump())


def _scalars(found: answers.Answer) -> dict[str, Any]:
    return {name: value for name, value in found if isinstance(value, str | int | float)}


def _print_rounds(found: answers.RunDetail) -> None:
    from fedft.cli.watch import describe_round

    for record in found.committed:
        console().print(cell(describe_round(record, found.total_rounds, with_bytes=True)), soft_wrap=True)


def _print_run_line(found: answers.RunState, *, json: bool) -> None:
    from fedft.server.admin import answers

    if json:
        print_json({name: value for name, value in found if name in answers.RunState.model_fields})
        return
    line = f"{found.id}  {found.state}  {found.rounds}/{found.total_rounds} rounds"
    console().print(cell(f"{line}  {found.error}".rstrip()), soft_wrap=True)


def _state(item: answers.MemberState) -> str:
    if item.revoked_at:
        return "revoked"
    return "connected" if item.connected else ("–" if item.role != "client" else "absent")
