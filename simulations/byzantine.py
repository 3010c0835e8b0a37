"""One hostile client of ten on the demo: each aggregation rule with and without an attack.

    python simulations/byzantine.py [--rules ...] [--attacks ...] [--splits ...] [--seeds ...]

Attacks: the update times 1,000; its sign flipped; labels flipped (every digit d of the client's answers is
9 - d, honestly trained on). All arms of a split and seed see the same samples. Rows are added to the output
file one by one, so a stopped script goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from experiment import COMMON, Row, Rows, percent
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedft.client.app import new_app
from fedft.client.site.folders import ClientFolders
from fedft.codecs import CodecContext, Manifest, decode, make_codec
from fedft.config import RunConfig, load_config
from fedft.config.load import to_json
from fedft.coordinator.coordinator import Coordinator
from fedft.data.partition import partition
from fedft.registries import AGGREGATION_RULES
from fedft.report import facts
from fedft.store import RunStore
from fedft.training.client_records import load_records_of
from fedft.training.seeds import derive_seed
from fedft.transport.flower_records import pack, unpack
from fedft.transport.inline import InlineGrid
from fedft.wire import Update, decode_reply, encode_reply, open_envelope, seal

CLIENTS, HOSTILE = 10, 9
MEAN, NO_ATTACK, LABELS = "mean", "none", "label flip"
FACTORS = {"× 1,000": 1000.0, "sign flip": -1.0}
ATTACKS = (NO_ATTACK, *FACTORS, LABELS)
SPLITS: dict[str, dict[str, object]] = {
    "iid": {"data.partition.kind": "iid"},
    "dirichlet": {"data.partition.kind": "dirichlet", "data.partition.alpha": 0.5},
}
SETTINGS: dict[str, object] = {
    "data.partition.field": "family",
    "data.partition.clients": CLIENTS,
    "rounds.total": 12,
    "rounds.weighting": "uniform",
    "training.steps": 3,
    "training.batch_size": 8,
    "codec.name": "dense",
}
SIZE = ("rounds.total", "training.steps", "training.batch_size")
FLIPPED = str.maketrans("0123456789", "9876543210")


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for seed in arguments.seeds:
        for split in arguments.splits:
            for attack in arguments.attacks:
                for rule in arguments.rules:
                    asked = {"split": split, "rule": rule, "attack": attack, "seed": seed}
                    rows.add(asked, partial(_measure, **asked))
                    rows.write_table(_table(rows))


def _measure(*, split: str, rule: str, attack: str, seed: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder), split, rule, seed, flipped=attack == LABELS)
        store = RunStore(config.store.path)
        run = store.create_run(config.name, to_json(config))
        folders = ClientFolders.of_user().with_state(store.folder.absolute() / "clients")
        honest = new_app(folders)
        factor = FACTORS.get(attack)
        manifest = partial(_manifest, store, run.id)
        app = honest if factor is None else _scaled(honest, manifest, factor)
        Coordinator(InlineGrid(app, CLIENTS), store, run).execute()  # type: ignore[arg-type]
        rounds = store.rounds(run.id)
    standings = facts.standings(rounds)
    place = [row.client for row in standings].index(f"client-{HOSTILE:03d}") if standings else None
    metrics = rounds[-1].evaluations[0].metrics
    seconds = statistics.mean(record.phases["aggregation"] for record in rounds[1:])
    return {
        "exact_match": metrics["exact_match"],
        "loss": metrics["loss"],
        "aggregation_seconds": round(seconds, 4),
        **({} if place is None else _standing(standings[place], place)),
    }


def _standing(row: facts.Standing, place: int) -> Row:
    return {"place": place + 1, "kept": round(row.kept, 4), "distance": round(row.distance, 3)}


def _config(folder: Path, split: str, rule: str, seed: int, *, flipped: bool) -> RunConfig:
    """Deal the demo's records to files, one for each client, of which the hostile one's may be wrong."""
    demo = load_config("demo", COMMON | SETTINGS | SPLITS[split] | {"seed": seed})
    records = load_records_of(demo, "train")
    parts = partition(records, demo.data.partition, derive_seed(seed, "partition"))
    for client, part in enumerate(parts):
        wrong = flipped and client == HOSTILE
        _write(folder / "train" / f"{client}.jsonl", records.take(part), wrong)
    for name in ("test", "public"):
        _write(folder / f"{name}.jsonl", load_records_of(demo, name), False)  # type: ignore[arg-type]
    files = {
        "data.train": str(folder / "train" / "*.jsonl"),
        "data.test": str(folder / "test.jsonl"),
        "data.public": str(folder / "public.jsonl"),
        "data.partition.kind": "files",
        "aggregation.rule": rule,
        "store.path": str(folder / "store"),
    }
    return load_config("demo", COMMON | SETTINGS | files | {"seed": seed})


def _write(path: Path, records: Any, wrong: bool) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [dict(record) for record in records]
    if wrong:
        rows = [{**row, "completion": row["completion"].translate(FLIPPED)} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _manifest(store: RunStore, run: str) -> Manifest:
    return Manifest.of(store.state(run, 0))


def _scaled(
    honest: ClientApp, manifest: Callable[[], Manifest], factor: float
) -> Callable[[Message, Context], Message]:
    """Return clients of which the hostile one multiplies every update."""

    def app(message: Message, context: Context) -> Message:
        answer = honest(message, context)
        if context.node_config["partition-id"] != HOSTILE:
            return answer
        reply = decode_reply(open_envelope(unpack(answer.content), max_bytes=1 << 30))
        if not isinstance(reply, Update):
            return answer
        update = decode(reply.shards, manifest(), CodecContext())
        worse = {name: (factor * value).astype(np.float32) for name, value in update.items()}
        shards = tuple(make_codec("dense").encode(worse, manifest(), CodecContext()))
        return Message(pack(seal(encode_reply(replace(reply, shards=shards)))), reply_to=message)

    return app


def _table(rows: Rows) -> Iterator[str]:
    yield from ("# One hostile client of ten", "")
    rounds, steps, batch = (SETTINGS[key] for key in SIZE)
    text = f"""
        Written by `simulations/byzantine.py`: the demo, {CLIENTS} clients that all count alike, {rounds}
        rounds of {steps} steps of {batch}, updates in float32. Exact match in per cent on the demo's 400
        test records; lost: points below the mean without an attack, of the same seeds. The runs are short
        and end where the score still rises steeply, so that it says what an attack does, and not which
        rule is the best without one. Kept is the share of the hostile client's updates that counted,
        place its place among the ten by distance to the result (1: the furthest). Seconds: of the server,
        for one round's aggregation.
    """
    yield from textwrap.wrap(" ".join(text.split()), 105)
    yield ""
    yield "| split | attack | rule | seeds | exact match | lost | test loss | kept | place | seconds |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for split in SPLITS:
        for attack in ATTACKS:
            for rule in AGGREGATION_RULES.built_in:
                yield from _line(rows, split, attack, rule)


def _line(rows: Rows, split: str, attack: str, rule: str) -> Iterator[str]:
    found = rows.select(split=split, attack=attack, rule=rule)
    reference = {row["seed"]: row for row in rows.select(split=split, attack=NO_ATTACK, rule=MEAN)}
    if not found or any(row["seed"] not in reference for row in found):
        return
    lost = statistics.mean(reference[row["seed"]]["exact_match"] - row["exact_match"] for row in found)
    loss = statistics.mean(row["loss"] for row in found)
    seconds = statistics.mean(row["aggregation_seconds"] for row in found)
    shown = percent(row["exact_match"] for row in found)
    judged = [row for row in found if "place" in row] if attack != NO_ATTACK else []
    kept = f"{100 * statistics.mean(row['kept'] for row in judged):.1f} %" if judged else "–"
    place = f"{statistics.mean(row['place'] for row in judged):.3g}" if judged else "–"
    run = f"{split} | {attack} | {rule} | {len(found)}"
    yield f"| {run} | {shown} | {100 * lost:.1f} | {loss:.3f} | {kept} | {place} | {seconds:.3f} |"


def _arguments() -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    rules: Sequence[str] = AGGREGATION_RULES.built_in
    parser.add_argument("--rules", nargs="+", choices=rules, default=rules)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS)
    parser.add_argument("--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[17])
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results / "byzantine.json", help="JSON of the rows")
    return parser.parse_args()


if __name__ == "__main__":
    main()
