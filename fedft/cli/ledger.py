"""``fedft privacy ledger``: what a site has spent on its data."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import cell, console, new_table, print_json
from fedft.errors import Code, FedftError

if TYPE_CHECKING:
    from fedft.client.site.config import SiteConfig
    from fedft.privacy.site.ledger import Ledger

commands = typer.Typer(no_args_is_help=True, help="Look at, verify and export a site's privacy ledger.")

Site = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="FEDFT_SITE", help="The site's configuration.", dir_okay=False),
]
File = Annotated[
    Path | None,
    typer.Option("--ledger", help="A ledger's file instead, e.g. a simulated client's.", dir_okay=False),
]
Run = Annotated[
    str, typer.Option("--run", help="A site with a part of a run's own records: that run's configuration.")
]
DEFAULT_SITE = Path("site.toml")


@commands.command(epilog=examples("fedft privacy ledger init -c hospital-a/site.toml"))
def init(config: Site = DEFAULT_SITE, run: Run = "", overrides: Overrides = None, json: Json = False) -> None:
    """Make this site's ledger and bind it to the data as they are now.

    Once for each data set. A second data set is enrolled in the ledger that is there;
    one that is enrolled already is left as it is.
    """
    from fedft.client.site.ledger import init_ledger

    site, dataset, fingerprint, records = _bound(config, run, overrides)
    path = init_ledger(site, fingerprint, records)
    _say(
        json,
        f"{path} is bound to {dataset}, {records} records",
        ledger=str(path),
        dataset=dataset,
        records=records,
    )


@commands.command(epilog=examples("fedft privacy ledger rebind -c hospital-a/site.toml"))
def rebind(
    config: Site = DEFAULT_SITE, run: Run = "", overrides: Overrides = None, json: Json = False
) -> None:
    """Bind the data set's name to the data as they are now; what was spent stays spent."""
    from fedft.client.site.ledger import open_ledger

    site, dataset, fingerprint, records = _bound(config, run, overrides)
    open_ledger(site).rebind(dataset, fingerprint, records)
    _say(
        json, f"{dataset} is bound to {records} records, its spending stays", dataset=dataset, records=records
    )


@commands.command(
    epilog=examples(
        "fedft privacy ledger show -c hospital-a/site.toml", "fedft privacy ledger show --ledger FILE"
    )
)
def show(
    config: Site = DEFAULT_SITE,
    file: File = None,
    delta: Annotated[
        float, typer.Option(help="State epsilon at this delta; else the policy's, or 1e-5.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Show what was spent on each data set, in all and by run."""
    from fedft.client.site.ledger import summary

    book, site = _ledger(config, file)
    found = summary(book, site, delta)
    if json:
        print_json({"datasets": found})
        return
    out = console()
    for item in found:
        budget = item["budget"]
        limit = f" of {budget['epsilon']:g} (policy, at delta {budget['delta']:g})" if budget else ""
        out.print(
            cell(f"{item['dataset']}: {item['examples']} records, fingerprint {item['fingerprint'][:12]}"),
            soft_wrap=True,
        )
        out.print(f"epsilon {item['epsilon']:.4g} at delta {item['delta']:g} is spent{limit}", soft_wrap=True)
        table = new_table("run", "rounds charged", "last round", "epsilon of this run")
        for run in item["runs"]:
            table.add_row(
                cell(run["run"]), str(run["charges"]), str(run["last_round"]), f"{run['epsilon']:.4g}"
            )
        out.print(table)


@commands.command(
    epilog=examples("fedft privacy ledger verify", "fedft privacy ledger verify --export ledger.json")
)
def verify(
    config: Site = DEFAULT_SITE,
    file: File = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="An exported ledger instead.", dir_okay=False, exists=True)
    ] = None,
    json: Json = False,
) -> None:
    """Recompute the whole chain; exit 1 when an entry was altered, cut or put in."""
    from fedft.privacy.site.ledger import verify_export

    if export is not None:
        entries = verify_export(_read_export(export))
        _say(json, f"{export}: whole, {entries} entries", entries=entries)
        return
    book, _ = _ledger(config, file)
    found = book.entries()
    _say(
        json,
        f"whole, {len(found)} entries, head {found[-1].digest}",
        entries=len(found),
        head=found[-1].digest,
    )


@commands.command(epilog=examples("fedft privacy ledger export -o ledger.json"))
def export(
    config: Site = DEFAULT_SITE,
    file: File = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; without it, standard output.", dir_okay=False)
    ] = None,
) -> None:
    """Write the whole ledger as JSON that `verify --export` can check anywhere."""
    book, _ = _ledger(config, file)
    text = json_module.dumps(book.export(), indent=1)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")


def _ledger(config: Path, file: Path | None) -> tuple[Ledger, SiteConfig | None]:
    from fedft.client.site.config import load_site
    from fedft.client.site.ledger import open_ledger
    from fedft.privacy.site.ledger import Ledger

    if file is not None:
        return Ledger(file), None
    site = load_site(config)
    return open_ledger(site), site


def _bound(config: Path, run: str, overrides: list[str] | None) -> tuple[SiteConfig, str, str, int]:
    from fedft.client.site.config import load_site
    from fedft.client.site.ledger import site_fingerprint
    from fedft.config import load_config, parse_overrides

    site = load_site(config)
    terms = load_config(run, parse_overrides(overrides or ())) if run else None
    return site, site.privacy.dataset, *site_fingerprint(site, terms)


def _read_export(path: Path) -> dict[str, Any]:
    try:
        found = json_module.loads(path.read_text("utf-8"))
        return {"entries": list(found["entries"]), "head": str(found["head"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FedftError(Code.LEDGER_ALTERED, f"{path} is not an exported ledger: {error}") from None


def _say(json: bool, text: str, **facts: Any) -> None:
    print_json(facts) if json else console().print(cell(text), soft_wrap=True)
