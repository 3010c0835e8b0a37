"""The run report: one HTML file with everything in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import fedft
from fedft.config import RunConfig
from fedft.config.load import from_json
from fedft.config.render import to_toml
from fedft.errors import Code, FedftError
from fedft.privacy.models.interface import privacy_model
from fedft.registries import METHODS
from fedft.report import facts, format, plots
from fedft.report.spending import spending
from fedft.statements import PrivacyStatement
from fedft.store import RoundRecord, RunRecord, RunStore

if TYPE_CHECKING:
    from fedft.training.memory_plan import MemoryPlan

Row = dict[str, Any]

_MOST_SETBACKS, _MOST_NAMED = 40, 8

_EXPLANATIONS = {
    "completed": "",
    "running": "The run is still going on, or its process was killed; this shows the committed rounds.",
    "interrupted": "The run was stopped and can be resumed; this shows the committed rounds.",
    "failed": "The run failed; this shows the committed rounds.",
    "created": "The run has not started yet.",
}


def default_path(store: RunStore, run: RunRecord) -> Path:
    """Return where a run's report goes unless the user says otherwise."""
    return store.folder / "reports" / f"{run.id}.html"


def write_report(store: RunStore, run: RunRecord, path: Path) -> None:
    """Write the report of a run; FEDFT-6051 when the file cannot be written."""
    rounds = store.rounds(run.id)
    parameters = sum(array.size for array in store.state(run.id, 0).values()) if rounds else 0
    page = render(run, rounds, store.events(run.id), parameters, _planned(run, rounds))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise FedftError(
            Code.REPORT_NOT_WRITABLE, f"cannot write the report {path}: {error.strerror}"
        ) from error


def render(
    run: RunRecord,
    rounds: Sequence[RoundRecord],
    events: Sequence[dict[str, Any]],
    parameters: int = 0,
    plan: MemoryPlan | None = None,
) -> str:
    """Return the report as HTML; the same records give the same text.

    ``parameters`` is the number of exchanged parameters, 0 when it is not known; ``plan`` is what a training
    step was expected to need.
    """
    config = from_json(run.config)
    metric = facts.headline_metric(rounds)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            explanation=_EXPLANATIONS[run.status],
            summary=_summary(config),
            tiles=_tiles(rounds, metric, config.rounds.total),
            metric=metric,
            changes=facts.changes(rounds, metric) if metric else [],
            comparison=_comparison(rounds, metric),
            plots=_plots(rounds, metric),
            traffic=_traffic(rounds),
            setbacks=_setbacks(rounds),
            spending=spending(rounds),
            privacy=config.privacy,
            private=privacy_model(config).private,
            stated=_last_statement(rounds),
            rounds=rounds,
            coding=_coding(rounds, parameters),
            averaging=facts.averaging_errors(rounds),
            rule=config.aggregation.rule,
            standings=facts.standings(rounds),
            masked=[record for record in rounds if record.secagg is not None],
            method=config.method,
            memory=_memory(rounds, plan),
            codec=config.codec.name,
            metrics=facts.metrics_of(rounds),
            config=to_toml(config, comments=False),
            digests=_digests(run),
            events=events,
            version=fedft.__version__,
        )
    )


def _last_statement(rounds: Sequence[RoundRecord]) -> PrivacyStatement | None:
    return next((found[0] for record in reversed(rounds) if (found := facts.statements_of(record))), None)


def _planned(run: RunRecord, rounds: Sequence[RoundRecord]) -> MemoryPlan | None:
    """Return the plan of a training step where there is a measurement to show beside it."""
    if facts.peak_memory(rounds) is None:
        return None
    from fedft.training.memory import plan_run

    try:
        return plan_run(from_json(run.config))
    except FedftError:  # a model that is not on this machine, or that cannot be planned
        return None


def _memory(rounds: Sequence[RoundRecord], plan: MemoryPlan | None) -> Row:
    measured = facts.peak_memory(rounds)
    parts = {} if plan is None else asdict(plan)
    return {
        "measured": None if measured is None else format.size(measured),
        "planned": None if plan is None else format.size(plan.peak),
        "parts": [
            {"name": format.MEMORY_PARTS[name], "bytes": format.size(count)} for name, count in parts.items()
        ],
    }


def _coding(rounds: Sequence[RoundRecord], parameters: int) -> list[Row]:
    rows = []
    for record in facts.training_rounds(rounds):
        bits = facts.bits_per_parameter(record.updates, parameters)
        if bits is None:
            continue
        error = facts.coding_error(record.updates)
        shown = "–" if error is None else f"{error:.4f}"
        rows.append(
            {"round": record.round, "bits": f"{bits:.3f}", "ratio": f"{32 / bits:.1f}×", "error": shown}
        )
    return rows


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fedft.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "size": format.size,
        "duration": format.duration,
        "clean": format.clean,
        "ledger_entry": format.ledger_entry,
        "moment": format.moment,
        "metric_name": format.metric_name,
    }
    environment.globals |= {
        "metric_value": format.metric_value,
        "metric_change": format.metric_change,
        "value_of": facts.value_of,
        "traffic_of": facts.traffic,
        "statuses_of": facts.statuses,
    }
    return environment


def _summary(config: RunConfig) -> str:
    adapter, clients = config.adapter, config.data.partition.clients
    parts = (
        f"model {config.model.source}",
        config.task.kind,
        f"{clients} client{'s' if clients > 1 else ''} ({config.data.partition.kind})",
        f"{config.method} ({METHODS.get(config.method).frame_facts(config).name}), rank {adapter.rank}",
        f"{config.rounds.total} round{'s' if config.rounds.total > 1 else ''}",
        f"seed {config.seed}",
    )
    return " · ".join(parts)


def _tiles(rounds: Sequence[RoundRecord], metric: str, planned: int) -> list[Row]:
    trained = facts.training_rounds(rounds)
    sent, each = facts.total_traffic(rounds), facts.mean_traffic(rounds)
    updates = [update for record in trained for update in record.updates]
    accepted = facts.statuses(updates)["accepted"]
    tiles = [] if not metric else [_quality_tile(rounds, metric)]
    return [
        *tiles,
        _tile("up, a client and round", format.size(each.up), f"{format.size(sent.up)} in total"),
        _tile("down, a client and round", format.size(each.down), f"{format.size(sent.down)} in total"),
        _tile("setup and frame, down", format.size(sent.setup), "once for each client"),
        _tile("rounds committed", f"{len(trained)} of {planned}", "round 0 is the start"),
        _tile("updates accepted", f"{accepted} of {len(updates)}", "of all clients asked"),
        _tile("time", format.duration(sum(record.seconds for record in rounds)), "all committed rounds"),
    ]


def _quality_tile(rounds: Sequence[RoundRecord], metric: str) -> Row:
    whole = facts.changes(rounds, metric)[0]
    before, after = (format.metric_value(metric, value) for value in (whole.before, whole.after))
    change = format.metric_change(metric, whole.before, whole.after)
    return _tile(f"{format.metric_name(metric)}, before → after", f"{before} → {after}", change)


def _tile(label: str, value: str, note: str) -> Row:
    return {"label": label, "value": value, "note": note}


def _comparison(rounds: Sequence[RoundRecord], metric: str) -> Row:
    groups = ["", *facts.groups_of(rounds)]
    rows = facts.comparisons(rounds, metric, groups)
    base = rows[0].values[0] if rows else None
    return {
        "groups": groups,
        "rows": [
            {
                "name": row.name,
                "values": [format.metric_value(metric, value) for value in row.values],
                "gain": format.metric_change(metric, base, row.values[0]) if row is not rows[0] else "",
                "ours": row.name == "federated",
            }
            for row in rows
        ],
    }


def _plots(rounds: Sequence[RoundRecord], metric: str) -> dict[str, Markup]:
    drawn = {
        "quality": plots.quality(rounds),
        "groups": plots.groups(rounds, metric) if metric else "",
        "bytes": plots.bytes_sent(rounds),
        "seconds": plots.seconds(rounds),
        "participation": plots.participation(rounds),
    }
    # Safe: drawn here, and matplotlib escapes the text that it sets.
    return {name: Markup(text) for name, text in drawn.items()}


def _traffic(rounds: Sequence[RoundRecord]) -> list[Row]:
    total, each = facts.total_traffic(rounds), facts.mean_traffic(rounds)
    return [
        {"name": "up: updates", "total": total.up, "client": each.up},
        {"name": "down: states", "total": total.down, "client": each.down},
        {"name": "down: setup and frame", "total": total.setup, "client": None},
        {"name": "both directions", "total": total.total, "client": None},
    ]


def _setbacks(rounds: Sequence[RoundRecord]) -> Row:
    found = facts.setbacks(rounds)
    rows = [
        {"status": item.status, "code": item.code, "message": item.message, "times": len(item.met)}
        | {"whom": ", ".join(f"{client} in {number}" for client, number in item.met[:_MOST_NAMED])}
        | {"more": max(0, len(item.met) - _MOST_NAMED)}
        for item in found[:_MOST_SETBACKS]
    ]
    return {"rows": rows, "more": max(0, len(found) - _MOST_SETBACKS)}


def _digests(run: RunRecord) -> list[tuple[str, str]]:
    config = json.dumps(json.loads(run.config), sort_keys=True, separators=(",", ":"))
    named = (
        ("final state", run.final_digest),
        ("base model", run.base_digest),
        ("frame", run.frame_digest),
        ("manifest", run.manifest_digest),
        ("configuration", _sha256(config)),
    )
    return [(name, digest) for name, digest in named if digest]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
