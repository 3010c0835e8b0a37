"""What a run came to, for people and for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from fedft.cli.output import cell, new_table
from fedft.report import facts
from fedft.report.format import duration, ledger_entry, metric_change, metric_name, metric_value, size
from fedft.report.spending import spending
from fedft.statements import PrivacyStatement
from fedft.store import RoundRecord, RunRecord

_STATUS_STYLE = {
    "accepted": "green",
    "refused": "red",
    "failed": "red",
    "late": "yellow",
    "completed": "green",
    "running": "cyan",
    "created": "cyan",
    "interrupted": "yellow",
}


def styled_status(status: str) -> Text:
    """Return a run's or an update's status in its colour."""
    return Text(status, style=_STATUS_STYLE.get(status, "red"))


def quality_table(rounds: Sequence[RoundRecord]) -> Table | None:
    """Return the headline metric before and after, of everything and of each group."""
    metric = facts.headline_metric(rounds)
    if not metric:
        return None
    table = new_table(metric_name(metric), "examples", "before", "after", "change")
    for row in facts.changes(rounds, metric):
        table.add_row(
            cell(row.group or "all"),
            str(row.num_examples),
            metric_value(metric, row.before),
            metric_value(metric, row.after),
            metric_change(metric, row.before, row.after),
            style="" if row.group else "bold",
        )
    return table


def comparison_table(rounds: Sequence[RoundRecord]) -> Table | None:
    """Return the federation beside central training and each client alone; None without comparison."""
    metric = facts.headline_metric(rounds)
    groups = ["", *facts.groups_of(rounds)]
    rows = facts.comparisons(rounds, metric, groups)
    if not rows:
        return None
    table = new_table("trained", *(group or "all" for group in groups))
    for row in rows:
        values = [metric_value(metric, value) for value in row.values]
        table.add_row(cell(row.name), *values, style="bold" if row.name == "federated" else "")
    return table


def privacy_table(rounds: Sequence[RoundRecord]) -> Table | None:
    """Return what each client has spent, as it stated it; None for a run without privacy."""
    rows = spending(rounds)
    if not rows:
        return None
    table = new_table(
        "client",
        "epsilon",
        "delta",
        "noise",
        "sampling rate",
        "steps",
        "rounds",
        "ledger entry",
        "budget",
        left=("ledger entry", "budget"),
    )
    for row in rows:
        table.add_row(
            cell(row.client),
            *_stated(row.statement),
            str(row.steps),
            str(row.rounds),
            ledger_entry(row.statement),
            cell(f"spent, refused round {row.spent_in}", "red") if row.spent_in else cell("covers it so far"),
        )
    return table


def _stated(statement: PrivacyStatement | None) -> tuple[str, str, str, str]:
    if statement is None:
        return "–", "–", "–", "–"
    return (
        f"{statement.epsilon:.3f}",
        f"{statement.delta:g}",
        f"{statement.noise_multiplier:.3f}",
        f"{statement.sample_rate:.3g}",
    )


def traffic_line(rounds: Sequence[RoundRecord]) -> str:
    """Say how much a client sent and received in a round, and what the whole run came to."""
    each, total = facts.mean_traffic(rounds), facts.total_traffic(rounds)
    return (
        f"up {size(each.up)}, down {size(each.down)} a client and round; "
        f"setup and frame {size(total.setup)}; {size(total.total)} in total"
    )


def averaging_line(rounds: Sequence[RoundRecord]) -> str:
    """Say what averaging got wrong in the last round and at worst; empty for a method that is exact."""
    errors = facts.averaging_errors(rounds)
    if not errors:
        return ""
    worst = max(errors, key=lambda pair: pair[1])
    return f"error {errors[-1][1]:.3g} of the mean change, at most {worst[1]:.3g} (round {worst[0]})"


def robust_line(rounds: Sequence[RoundRecord]) -> str:
    """Say which client a robust rule found furthest from the others; empty with the plain mean."""
    standings = facts.standings(rounds)
    if not standings:
        return ""
    first = standings[0]
    return (
        f"{first.client} is furthest from the result, {first.distance:.3g} times the median distance; "
        f"{100 * first.kept:.0f} % of its updates counted"
    )


def time_line(rounds: Sequence[RoundRecord]) -> str:
    """Say how long the committed rounds took."""
    count = len(facts.training_rounds(rounds))
    return (
        f"{duration(sum(record.seconds for record in rounds))} for {count} round{'' if count == 1 else 's'}"
    )


def run_as_dict(run: RunRecord, rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return what scripts get of a run: its record, the headline and every round."""
    values = asdict(run)
    values.pop("config")
    return {**values, **headline(rounds), "committed": [round_as_dict(record) for record in rounds]}


def headline(rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return the headline metric by group and the bytes of each direction."""
    metric = facts.headline_metric(rounds)
    return {
        "headline_metric": metric,
        "quality": [asdict(row) for row in facts.changes(rounds, metric)] if metric else [],
        "bytes": _bytes(facts.total_traffic(rounds)),
        "privacy": [asdict(row) for row in spending(rounds)],
    }


def round_as_dict(record: RoundRecord) -> dict[str, Any]:
    """Return a round with its bytes added up."""
    return {**asdict(record), "bytes": _bytes(facts.traffic(record.updates))}


def _bytes(sent: facts.Traffic) -> Mapping[str, int]:
    return {**asdict(sent), "total": sent.total}
