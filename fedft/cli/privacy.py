"""``fedft privacy``: the cost of a run before it starts, the audit of the private step, an example policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedft.cli import ledger
from fedft.cli.arguments import Json, Overrides, examples
from fedft.cli.output import FAILURE, cell, console, error_console, new_table, print_json

if TYPE_CHECKING:
    from fedft.config import RunConfig
    from fedft.privacy.accounting.planning import PlanRow

commands = typer.Typer(no_args_is_help=True, help="Plan, audit and account for privacy.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands.add_typer(ledger.commands, name="ledger")
    app.add_typer(commands, name="privacy")


@commands.command(
    epilog=examples(
        "fedft privacy plan run.toml",
        "fedft privacy plan run.toml --epsilon 1 --epsilon 3 --batch 64 --batch 256 --plot plan.png",
        "fedft privacy plan run.toml --site hospital-a/site.toml",
    )
)
def plan(
    source: Annotated[str, typer.Argument(metavar="CONFIG", help="A TOML file, or [bold]demo[/].")],
    overrides: Overrides = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Targets to compare; repeatable. Else 1, 3, 8 and the run's.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Expected batches to compare; repeatable. Else around the run's.")
    ] = None,
    size: Annotated[
        int, typer.Option("--examples", min=0, help="Records of a client; else those of the smallest one.")
    ] = 0,
    parameters: Annotated[
        int,
        typer.Option(min=0, help="Trainable parameters; else the base model is loaded and they are counted."),
    ] = 0,
    site: Annotated[
        Path | None, typer.Option(help="A site.toml: plan on its records and what its ledger has spent.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the trade-off as a PNG.", dir_okay=False)] = None,
    json: Json = False,
) -> None:
    """Show what privacy costs before any run: noise by epsilon and batch size.

    With client-level privacy a unit is a client, a batch the expected cohort and a step a round.

    noise multiplier: deviation of the noise over the bound of one unit's contribution.
    noise to clip: length of one step's noise over that bound, which is the most that the
    signal can have; well above 1, larger batches, fewer parameters or more epsilon help.

    Below the table stand the settings that theory proposes for the run's epsilon, and what
    of the result will be noise. They say nothing of any record but how many there are.
    """
    from dataclasses import asdict

    from fedft.client.site.privacy_plan import plan_run
    from fedft.config import load_config, parse_overrides

    config = load_config(source, parse_overrides(overrides or ()))
    found = plan_run(config, site=site, epsilons=epsilon, batches=batch, examples=size, parameters=parameters)
    if plot is not None:
        from fedft.report.plan_plot import write_plot

        write_plot(plot, found.rows, found.delta)
    if json:
        facts = {name: value for name, value in vars(found).items() if name not in ("rows", "spent")}
        rows = [asdict(row) for row in found.rows]
        facts["proposal"] = None if found.proposal is None else asdict(found.proposal)
        print_json({**facts, "spent_epsilon": found.spent_epsilon, "plan": rows, "plot": str(plot or "")})
        return
    out = console()
    of_clients = _unit_is_client(config)
    out.print(
        f"{found.examples} {'clients' if of_clients else 'examples'}, {found.parameters} parameters, "
        f"delta {found.delta:g}, {config.rounds.total} rounds, "
        f"{'poisson' if of_clients else config.privacy.sampling} sampling"
        + (f"; {found.spent_epsilon:.4g} of epsilon is spent already" if found.spent else ""),
        soft_wrap=True,
    )
    out.print(_plan_table(config, found.rows))
    if found.proposal is not None:
        out.print("proposed, of theory alone:", soft_wrap=True)
        for key, value in found.proposal.settings.items():
            out.print(f"  --set {key}={value}", soft_wrap=True, highlight=False)
        out.print(f"  {found.proposal.expected}", soft_wrap=True)
    if plot is not None:
        out.print(f"plot  [bold]{plot}[/]", soft_wrap=True)


def _unit_is_client(config: RunConfig) -> bool:
    from fedft.privacy.models.interface import privacy_model
    from fedft.statements import PrivacyUnit

    return privacy_model(config).unit is PrivacyUnit.CLIENT


def _plan_table(config: RunConfig, rows: list[PlanRow]) -> Any:
    from fedft.training.private_schedule import expected_clients

    table = new_table("batch", "epsilon", "sampling rate", "steps", "noise multiplier", "noise to clip")
    batch = config.training.batch_size
    if _unit_is_client(config):
        batch = round(expected_clients(config))
    for row in rows:
        noise = "none is enough" if row.noise_multiplier is None else f"{row.noise_multiplier:.4f}"
        ratio = "–" if row.noise_to_clip is None else f"{row.noise_to_clip:.3g}"
        ours = (row.expected_batch, row.epsilon) == (batch, config.privacy.epsilon)
        cells = (f"{row.epsilon:g}", f"{row.sample_rate:.4g}", str(row.steps), noise, ratio)
        table.add_row(str(row.expected_batch), *cells, style="bold" if ours else "")
    return table


@commands.command(epilog=examples("fedft privacy audit", "fedft privacy audit --quick --json"))
def audit(
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of a minute or two.")] = False,
    json: Json = False,
) -> None:
    """Attack the private step that is installed here; exit 1 when it leaks more than it claims.

    Each measurement stands beside the largest value that fits the claim. An audit
    can show that a claim is false, not that it is true.
    """
    from dataclasses import asdict

    from fedft.privacy.audit import FULL, QUICK
    from fedft.privacy.audit import audit as attack

    notes = error_console()
    with notes.status("audit") as status:
        report = attack(
            effort=QUICK if quick else FULL, begun=lambda name: status.update(f"attacking: {name}")
        )
    if json:
        rows = [{**asdict(finding), "passed": finding.passed} for finding in report.findings]
        print_json({"passed": report.passed, "seconds": report.seconds, "findings": rows})
    else:
        table = new_table("test", "measured", "value", "fits the claim up to", "", left=("measured",))
        for finding in report.findings:
            word = cell("ok", "green") if finding.passed else cell("leaks", "bold red")
            values = f"{finding.measured:.4g}", f"{finding.allowed:.4g}"
            table.add_row(cell(finding.test), cell(finding.what), *values, word)
        console().print(table)
        console().print(f"{'passed' if report.passed else 'failed'} in {report.seconds:.0f} s")
    if not report.passed:
        raise typer.Exit(FAILURE)


@commands.command(epilog=examples("fedft privacy policy > policy.toml"))
def policy() -> None:
    """Print an example of a site policy, to be edited by the site."""
    from importlib import resources

    print(resources.files("fedft.privacy.site").joinpath("example_policy.toml").read_text("utf-8"), end="")
