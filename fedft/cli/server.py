"""``fedft server``: the consortium's server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from fedft.cli.arguments import Json, examples
from fedft.cli.output import console, print_json

commands = typer.Typer(no_args_is_help=True, help="Set up and run a consortium's server.")
Folder = Annotated[Path, typer.Argument(help="The server's folder.", file_okay=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="server")


@commands.command(epilog=examples("fedft server init consortium --host fl.example.org"))
def init(
    folder: Folder,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address under which clients reach the server; repeatable."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the consortium.")] = "fedft",
    link: Annotated[str, typer.Option("--link", help="Address that clients connect to.")] = "0.0.0.0:7443",
    admin: Annotated[str, typer.Option("--admin", help="Address of the admin service.")] = "0.0.0.0:7444",
    metrics: Annotated[
        str, typer.Option("--metrics", help="Address of Prometheus metrics and health; empty for none.")
    ] = "127.0.0.1:9464",
    json: Json = False,
) -> None:
    """Make a server's folder: authority, certificates, settings and the first operator's identity."""
    from fedft.server.settings import ServerSettings, initialise

    hosts = tuple(host or ("localhost", "127.0.0.1"))
    settings = ServerSettings(
        name=name, hosts=hosts, link=link, admin=admin, metrics=metrics, folder=folder.absolute()
    )
    bundle = initialise(settings)
    if json:
        print_json({"folder": str(folder), "bundle": str(bundle), "admin": str(folder / "admin")})
        return
    out = console()
    out.print(f"made [bold]{folder}[/]: back it up, and keep {folder}/ca/ca.key to yourself", soft_wrap=True)
    out.print(f"sites join with   {folder}/join.json", soft_wrap=True)
    out.print(f"operate it with   fedft admin --admin {folder}/admin health", soft_wrap=True)
    out.print(f"start it with     fedft server run {folder}", soft_wrap=True)


@commands.command(epilog=examples("fedft server run consortium"))
def run(folder: Folder) -> None:
    """Serve until stopped; a run that was going on is continued by itself."""
    from fedft.server.daemon import ServerDaemon

    log_to_stderr()
    ServerDaemon(folder).run()


@commands.command(
    epilog=examples(
        "fedft server operator consortium consortium/admin", "fedft server operator consortium bob --name bob"
    )
)
def operator(
    folder: Folder,
    identity: Annotated[Path, typer.Argument(help="The operator's folder, or a new one.", file_okay=False)],
    name: Annotated[str, typer.Option("--name", help="Name of a new operator.")] = "operator-2",
    json: Json = False,
) -> None:
    """Renew an operator's certificate, or make an operator, when no other operator can; a server may run."""
    from fedft.server.operators import enroll_operator
    from fedft.server.settings import load_settings

    certificate = enroll_operator(load_settings(folder), identity, name)
    if json:
        print_json({"folder": str(identity), "certificate": str(certificate)})
    else:
        console().print(f"operate the server with   fedft admin --admin {identity} health", soft_wrap=True)


def log_to_stderr() -> None:
    """Send the daemons' log to standard error, a line for each event, times in UTC.

    SIGUSR1 prints where every thread stands.
    """
    import faulthandler
    import signal
    import time

    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("fedft").setLevel(logging.INFO)
