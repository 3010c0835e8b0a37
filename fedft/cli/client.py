"""``fedft client``: a site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import FAILURE, cell, console, error_console, new_table, print_json

if TYPE_CHECKING:
    from fedft.config import RunConfig

commands = typer.Typer(no_args_is_help=True, help="Join a consortium and run a site's daemon.")
Site = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="FEDFT_SITE", help="The site's configuration.", dir_okay=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree without being asked, for scripts.")]
DEFAULT_SITE = Path("site.toml")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="client")


@commands.command(
    epilog=examples(
        "fedft client join join.json --name hospital-a --train /data/notes.jsonl",
        "fedft client join join.json --name hospital-a --train /data/notes.jsonl --run run.toml --epsilon 4",
    )
)
def join(
    bundle: Annotated[Path, typer.Argument(help="join.json of the server.", dir_okay=False, exists=True)],
    name: Annotated[str, typer.Option("--name", help="The site's name: letters, digits, dots, dashes.")],
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="The site's folder; without it, the name.", file_okay=False),
    ] = None,
    train: Annotated[
        str, typer.Option("--train", help="This site's training records: file, folder, glob or hub id.")
    ] = "",
    partition: Annotated[
        str,
        typer.Option(
            "--partition", help="Instead of own records: part I/N of the run's, e.g. 0/3.", metavar="I/N"
        ),
    ] = "",
    model: Annotated[
        str, typer.Option("--model", help="The base model's folder here; else the run names it.")
    ] = "",
    epsilon: Annotated[
        float,
        typer.Option("--epsilon", min=0, help="Budget of this site's data, for ever; makes a policy.toml."),
    ] = 0.0,
    delta: Annotated[
        float, typer.Option("--delta", min=0, help="The budget's delta, below one over the records.")
    ] = 1e-5,
    run: Annotated[
        str,
        typer.Option(
            "--run", help="The run that the operator shows, or demo; how it reads records is pinned."
        ),
    ] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make this site's keys, its configuration and a request for the server's operator.

    The private keys stay in the folder. The operator enrolls the request and
    sends back certificate.pem, which belongs beside the keys.
    """
    from fedft.client.site.join import join_site
    from fedft.config import load_config

    place = folder or Path(name)
    budget = (epsilon, delta) if epsilon else None
    asked = load_config(run) if run else None
    request = join_site(
        bundle, place, name, train=train, partition=partition, model=model, budget=budget, run=asked
    )
    if asked is not None:
        _agree(place / "site.toml", asked, yes=yes)
    if json:
        print_json({"folder": str(place), "request": str(request), "config": str(place / "site.toml")})
        return
    out = console()
    out.print(f"made [bold]{place}[/] with keys that never leave it, and site.toml", soft_wrap=True)
    out.print(f"send to the operator   {request}", soft_wrap=True)
    out.print(f"put the answer into    {place}/certificate.pem", soft_wrap=True)
    if budget:
        out.print(f"read and amend         {place}/policy.toml", soft_wrap=True)
        if asked is None:
            out.print(
                f"agree to a run's form  fedft client pin RUN.toml -c {place}/site.toml", soft_wrap=True
            )
        out.print(f"bind a ledger to data  fedft privacy ledger init -c {place}/site.toml", soft_wrap=True)
    out.print(f"then                   fedft client check -c {place}/site.toml", soft_wrap=True)


@commands.command(epilog=examples("fedft client pin run.toml --config hospital-a/site.toml"))
def pin(
    run: Annotated[
        str, typer.Argument(help="The run that the operator shows: a TOML file, or [bold]demo[/].")
    ],
    overrides: Overrides = None,
    config: Site = DEFAULT_SITE,
    yes: Yes = False,
) -> None:
    """Agree to how a run reads this site's records: templates, fields, labels, tokenizer, dtype.

    Private rounds need it. A run that asks for anything else is refused, whatever the server says.
    """
    from fedft.config import load_config, parse_overrides

    _agree(config, load_config(run, parse_overrides(overrides or ())), yes=yes)


def _agree(config: Path, run: RunConfig, *, yes: bool) -> None:
    """Show what would be pinned, ask, and write it into site.toml."""
    from fedft.client.site.config import load_site
    from fedft.client.site.pinning import pin, propose

    agreement = propose(load_site(config), run)
    notes = error_console()
    table = new_table("the run would use", "", left=("",))
    for key, value in agreement.pinned.named().items():
        table.add_row(cell(key), cell(f"{value!r}"))
    notes.print(table)
    notes.print(f"{agreement.samples} of {agreement.records} records of this site give a sample so")
    if not yes:
        typer.confirm("Agree, and refuse everything else?", abort=True, err=True)
    pin(config, agreement.pinned)


@commands.command(epilog=examples("fedft client peers clinic-b/request.json -c clinic-a/site.toml"))
def peers(
    requests: Annotated[
        list[Path], typer.Argument(help="The other sites' request.json.", dir_okay=False, exists=True)
    ],
    config: Site = DEFAULT_SITE,
    yes: Yes = False,
) -> None:
    """Pin the keys of the sites whose updates this site's may be masked with.

    Get the files, or at least the keys, from the other sites themselves: a server that
    could name the members of a sum would surround this site with members of its own.
    """
    from fedft.client.site.peers import pin_peers, read_peers

    found = read_peers(requests)
    table = new_table("site", "signs with", left=("site", "signs with"))
    for name, key in found.items():
        table.add_row(cell(name), cell(key))
    error_console().print(table)
    if not yes:
        typer.confirm("Are these the other sites' own keys?", abort=True, err=True)
    pin_peers(config, found)


@commands.command(epilog=examples("fedft client run --config hospital-a/site.toml"))
def run(config: Site = DEFAULT_SITE) -> None:
    """Run the daemon until stopped: one supervisor and one worker that keeps the model in memory."""
    from fedft.cli.server import log_to_stderr
    from fedft.client.daemon.daemon import Daemon

    log_to_stderr()
    Daemon(config).run()


@commands.command(epilog=examples("fedft client status --config hospital-a/site.toml --json"))
def status(config: Site = DEFAULT_SITE, json: Json = False) -> None:
    """Show what this site's daemon is doing; exit 1 when it is not running or not connected."""
    from dataclasses import asdict

    from fedft.client.daemon.status import read_status
    from fedft.client.site.config import load_site

    site = load_site(config)
    found, running = read_status(site.path(site.state))
    facts: dict[str, Any] = {"running": running, **(asdict(found) if found else {})}
    if json:
        print_json(facts)
    else:
        _print_status(facts)
    if not (running and facts.get("connected")):
        raise typer.Exit(FAILURE)


@commands.command(epilog=examples("fedft client check --config hospital-a/site.toml"))
def check(
    config: Site = DEFAULT_SITE,
    json: Json = False,
    model: Annotated[bool, typer.Option(help="Load the base model too, if site.toml names one.")] = True,
) -> None:
    """Try every precondition of taking part; exit 1 when one fails."""
    from fedft.client.daemon.preflight import run_checks

    results = run_checks(config, model=model)
    good = all(result.good for result in results)
    if json:
        print_json({"good": good, "checks": [vars(result) for result in results]})
    else:
        table = new_table("check", "result", "what was found", left=("result", "what was found"))
        for result in results:
            word = cell("ok", "green") if result.good else cell("failed", "bold red")
            table.add_row(cell(result.name), word, cell(result.found))
        console().print(table)
    if not good:
        raise typer.Exit(FAILURE)


def _print_status(facts: dict[str, Any]) -> None:
    from fedft.report.format import moment

    out = console()
    if not facts["running"]:
        out.print("no daemon is running", style="yellow")
    if "client" not in facts:
        return
    table = new_table("", "")
    at = f"{facts['run']}, round {facts['round']}" if facts["run"] else "–"
    rows = {
        "site": facts["client"],
        "server": facts["server"],
        "connected": "yes" if facts["running"] and facts["connected"] else "no",
        "phase": facts["phase"] if facts["running"] else "–",
        "last instruction": at,
        "answered": f"{facts['answered']}, of these {facts['repeated']} from the journal, "
        f"{facts['declined']} declined",
        "worker": f"pid {facts['worker_pid'] or '–'}, started {facts['worker_starts']} times",
        "clock": f"the server's is {facts['clock_skew']:+.1f} s from ours",
    }
    for name, value in rows.items():
        table.add_row(name, cell(value))
    if facts["last_error"]:
        from datetime import UTC, datetime

        time = datetime.fromtimestamp(facts["last_error_at"], UTC).isoformat()
        table.add_row("last error", cell(f"{moment(time)} UTC  {facts['last_error']}", "red"))
    out.print(table)
