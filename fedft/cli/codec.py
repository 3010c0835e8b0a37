"""``fedft codec bench``: the codecs on a run's own updates."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Annotated

import typer

from fedft.cli.arguments import DEFAULT_STORE, Json, Run, Store, examples
from fedft.cli.output import console, new_table, print_json
from fedft.errors import Code

app = typer.Typer(no_args_is_help=True, help="Compare the codecs of updates.")


def register(root: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("fedft codec bench latest", "fedft codec bench latest --last 3 --json"))(
        bench
    )
    root.add_typer(app, name="codec")


@app.callback()
def group() -> None:
    """Compare the codecs of updates."""


def bench(
    run: Run = "latest",
    store: Store = DEFAULT_STORE,
    last: Annotated[int, typer.Option(min=1, help="Use the changes of the last so many rounds.")] = 5,
    json: Json = False,
) -> None:
    """Code a run's committed changes of state with every codec.

    Shows bits per parameter, the ratio to float32, the relative L2 error of
    one update on its own (error feedback makes up for it over the rounds), and
    the time to code and decode.
    """
    from fedft.codecs.bench import measure_codecs
    from fedft.errors import FedftError
    from fedft.store import RunStore

    kept = RunStore(store, create=False)
    record = kept.run(run)
    number = kept.last_round(record.id) or 0
    if number == 0:
        raise FedftError(Code.ROUND_NOT_COMMITTED, f"run {record.id} has no committed round of training yet")
    states = [kept.state(record.id, n) for n in range(max(0, number - last), number + 1)]
    updates = [{name: after[name] - before[name] for name in after} for before, after in pairwise(states)]
    figures = measure_codecs(updates)
    if json:
        print_json({"run": record.id, "updates": len(updates), "codecs": [asdict(row) for row in figures]})
        return
    table = new_table("codec", "bits/param", "vs float32", "error", "encode ms", "decode ms")
    for row in figures:
        ratio, times = f"{row.ratio:.1f}x", (f"{row.encode_ms:.2f}", f"{row.decode_ms:.2f}")
        table.add_row(row.name, f"{row.bits:.3f}", ratio, f"{row.error:.4f}", *times)
    console().print(table)
