"""``fedft simulate`` and ``fedft demo``: a whole federation on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedft.cli.arguments import DEFAULT_STORE, Json, OptionalStore, Overrides, examples
from fedft.cli.output import INTERRUPTED, console, error_console, exit_code, print_error, print_json
from fedft.errors import Code, FedftError

if TYPE_CHECKING:
    from fedft.cli.progress import RunObserver
    from fedft.config import RunConfig
    from fedft.store import RoundRecord, RunStore

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the run's id and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("fedft demo", "fedft demo --compare", "fedft demo --json > demo.jsonl"))(demo)
    app.command(
        epilog=examples(
            "fedft simulate my.toml",
            "fedft simulate my.toml --set rounds.total=2 --set seed=3",
            "fedft simulate --resume latest",
            "RUN=$(fedft simulate my.toml --quiet)",
        )
    )(simulate)


def demo(
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Also train centrally on the pooled data, and alone on each client."),
    ] = False,
    store: OptionalStore = None,
    json: Json = False,
) -> None:
    """Run a small real federation: no network, no GPU, a few minutes.

    Four clients each hold two families of word problems that the bundled model
    has never read. They train it together without showing each other a single
    problem. The exact match of each family is shown before and after, and a
    report is written.
    """
    from fedft.report.page import default_path, write_report
    from fedft.simulation.simulate import simulate as run_simulation

    config = _load("demo", None, store)
    kept = _open(Path(config.store.path))
    with _watched(kept, json=json) as observer:
        run = run_simulation(config, store=kept, observer=observer)
        if compare:
            from fedft.simulation.baselines import compare as run_comparison

            run_comparison(kept, run, observer)
    report = default_path(kept, run)
    write_report(kept, run, report)
    _print_end(kept, run.id, json=json, report=report)


def simulate(
    source: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="A TOML file, or [bold]demo[/]; none with --resume."),
    ] = None,
    overrides: Overrides = None,
    store: OptionalStore = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run that was interrupted.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a federation on this machine, or go on with one.

    Every round is committed as a whole: stopped by Ctrl-C or by a crash, a run
    goes on after its last committed round and ends with the same bits.
    """
    from fedft.simulation.simulate import simulate as run_simulation

    config, reference, earlier = None, "", list["RoundRecord"]()
    if resume is not None:
        _refuse_changes(source, overrides)
        kept = _open(store or DEFAULT_STORE, create=False)
        reference = kept.run(resume).id
        earlier = kept.rounds(reference)
    elif source is not None:
        config = _load(source, overrides, store)
        kept = _open(Path(config.store.path))
    else:
        raise typer.BadParameter("name a configuration, or a run with --resume", param_hint="CONFIG")
    with _watched(kept, earlier, json=json, quiet=quiet) as observer:
        run = run_simulation(config, store=kept, resume=reference, observer=observer)
    if quiet and not json:
        print(run.id)
    else:
        _print_end(kept, run.id, json=json)


def _load(source: str, overrides: list[str] | None, store: Path | None) -> RunConfig:
    from fedft.config import load_config, parse_overrides

    chosen = {} if store is None else {"store.path": str(store)}
    return load_config(source, parse_overrides(overrides or ()) | chosen)


def _open(folder: Path, *, create: bool = True) -> RunStore:
    from fedft.store import RunStore

    return RunStore(folder, create=create)


def _refuse_changes(source: str | None, overrides: list[str] | None) -> None:
    if source is not None or overrides:
        raise FedftError(
            Code.RESUME_WITH_CONFIG,
            "a resumed run keeps the configuration that it was started with",
            hint="leave out CONFIG and --set, or start a new run without --resume",
        )


@contextmanager
def _watched(
    store: RunStore, earlier: Sequence[RoundRecord] = (), *, json: bool, quiet: bool = False
) -> Iterator[RunObserver]:
    """Show a run; when it ends early, say how to go on and exit."""
    from fedft.cli.progress import choose_observer

    observer = choose_observer(console(), json=json, quiet=quiet, earlier=earlier)
    try:
        with observer:
            yield observer
    except KeyboardInterrupt as error:
        error_console().print("interrupted", style="yellow")
        _print_way_on(store, observer.watch.run_id)
        raise typer.Exit(INTERRUPTED) from error
    except FedftError as error:
        if json:
            print_json({"event": "error", "code": error.code, "message": error.message, "hint": error.hint})
        print_error(error)
        _print_way_on(store, observer.watch.run_id)
        raise typer.Exit(exit_code(error)) from error


def _print_way_on(store: RunStore, run_id: str) -> None:
    run = next((each for each in store.runs() if each.id == run_id), None)
    if run is None:  # a mistake ended it before its first round, and it is not kept
        return
    if run.status == "completed":
        what, command = "the run itself is complete; its report", "report"
    else:
        count = "1 round is" if run.rounds == 1 else f"{run.rounds} rounds are"
        what, command = f"{count} committed; go on with", "simulate --resume"
    error_console().print(f"{what}:  fedft {command} {run_id}{_store_option(store)}", soft_wrap=True)


def _print_end(store: RunStore, run_id: str, *, json: bool, report: Path | None = None) -> None:
    from fedft.cli.summary import (
        averaging_line,
        comparison_table,
        headline,
        privacy_table,
        quality_table,
        robust_line,
        time_line,
        traffic_line,
    )

    run, rounds = store.run(run_id), store.rounds(run_id)
    if json:
        facts = {"run": run.id, "status": run.status, "final_digest": run.final_digest}
        places = {"store": str(store.folder), "report": str(report) if report else ""}
        print_json({"event": "summary", **facts, **places, **headline(rounds)})
        return
    out = console()
    out.print(f"\n[green]{run.status}[/]  [bold]{run.id}[/]  {time_line(rounds)}\n", soft_wrap=True)
    for table in (quality_table(rounds), comparison_table(rounds), privacy_table(rounds)):
        if table is not None:
            out.print(table)
            out.print()
    out.print(f"sent    {traffic_line(rounds)}", soft_wrap=True)
    if line := averaging_line(rounds):
        out.print(f"average {line}", soft_wrap=True)
    if line := robust_line(rounds):
        out.print(f"robust  {line}", soft_wrap=True)
    out.print(f"state   {run.final_digest}", style="dim", soft_wrap=True)
    if report is not None:
        out.print(f"report  [bold]{report}[/]", soft_wrap=True)
    commands = [f"fedft runs show {run.id}", f"fedft export peft {run.id} adapter/"]
    commands = [*([] if report else [f"fedft report {run.id}"]), *commands]
    for label, command in zip(["next", *[""] * len(commands)], commands, strict=False):
        out.print(f"{label:7} [cyan]{command}{_store_option(store)}[/]", soft_wrap=True)


def _store_option(store: RunStore) -> str:
    same = store.folder.absolute() == DEFAULT_STORE.absolute()
    return "" if same else f" --store {shlex.quote(str(store.folder))}"
