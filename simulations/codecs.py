"""Compares what codecs cost in learning: the demo and SST-2/MiniLM, four and ten clients, three seeds.

    python simulations/codecs.py --data DIR --model DIR [--tasks ...] [--clients ...] [--seeds ...]

DIR of --data holds SST-2's train.tsv, dev.tsv and test.tsv ("sentence<TAB>label", no header). The codecs
of one task, number of clients and seed start from the same state and see the same samples. Rows are added
to the output file one by one, so a stopped script goes on; the table is written at every start and end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from rows import Row, Rows

from fedft.config import RunConfig, load_config
from fedft.server.simulate import simulate
from fedft.store import RunStore

SST2 = Path(__file__).parents[1] / "examples" / "sst2-minilm.toml"
REFERENCE = "dense"
CODECS: dict[str, dict[str, object]] = {
    REFERENCE: {"codec.name": "dense"},
    "ternary 10 %, error feedback": {"codec.name": "ternary"},
    "ternary 10 %": {"codec.name": "ternary", "codec.error_feedback": False},
    "rotated, 1 bit": {"codec.name": "rotated1"},
}
COMMON: dict[str, object] = {
    "simulation.backend": "inline",
    "evaluation.every": 1000,  # the last round is always evaluated
    "adapter.layers_at_once": 36,
}
# Ten clients take smaller batches, so that a step costs about the same.
TASKS: dict[str, dict[str, object]] = {
    "demo": {"rounds.total": 40, "training.steps": 5},
    "sst2": {"rounds.total": 16, "training.steps": 4},
}
CLIENTS: dict[int, dict[str, object]] = {
    4: {"training.batch_size": 16},
    10: {"training.batch_size": 8},
}
SPLIT: dict[str, dict[str, object]] = {
    "demo": {"data.partition.kind": "dirichlet", "data.partition.field": "family"},
    "sst2": {"data.partition.kind": "dirichlet"},
}
SCORE = {"demo": "exact_match", "sst2": "accuracy"}


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for clients in arguments.clients:
                for codec in arguments.codecs:
                    asked = {"task": task, "clients": clients, "codec": codec, "seed": seed}
                    rows.add(asked, partial(_measure, _config(arguments, **asked)))
    arguments.out.with_suffix(".md").write_text(_table(rows))


def _measure(config: RunConfig) -> Row:
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        rounds = store.rounds(simulate(config, store=store).id)
    sent = [update.bytes_up for record in rounds[1:] for update in record.updates]
    before = [dict(evaluation.metrics) for evaluation in rounds[0].evaluations]
    return {
        **({"before": before[0]} if before else {}),
        "after": dict(rounds[-1].evaluations[0].metrics),
        "bytes_up": round(statistics.mean(sent)),
        "cpu_seconds": round(time.process_time() - start),
    }


def _config(arguments: argparse.Namespace, *, task: str, clients: int, codec: str, seed: int) -> RunConfig:
    settings: dict[str, object] = {"seed": seed, "data.partition.clients": clients}
    settings |= COMMON | TASKS[task] | SPLIT[task] | CLIENTS[clients] | CODECS[codec]
    settings["evaluation.before"] = codec == REFERENCE  # all codecs start from the same state
    settings |= dict(pair.split("=", 1) for pair in arguments.set)
    if task == "demo":
        return load_config("demo", settings)
    settings["model.source"] = str(arguments.model.resolve())
    for part, name in {"train": "train", "public": "dev", "test": "test"}.items():
        settings[f"data.{part}"] = str((arguments.data / f"{name}.tsv").resolve())
    return load_config(SST2, settings)


def _table(rows: Rows) -> str:
    lines = [
        "# What codecs cost in learning",
        "",
        "Written by `simulations/codecs.py`. Gain kept: what the test loss fell by over the run, summed over",
        "the seeds, as a share of what it fell by uncompressed; the same for the score (accuracy, or exact",
        "match in the demo), which is coarser. Dirichlet(0.5) split; bytes up are a client's in a round.",
        "",
        "| task | clients | codec | seeds | gain kept (loss) | gain kept (score) | score | bytes up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in SCORE:
        for clients in CLIENTS:
            for codec in CODECS:
                lines += _line(rows, task, clients, codec)
    return "\n".join(lines) + "\n"


def _line(rows: Rows, task: str, clients: int, codec: str) -> list[str]:
    found = rows.select(task=task, clients=clients, codec=codec)
    reference = {row["seed"]: row for row in rows.select(task=task, clients=clients, codec=REFERENCE)}
    pairs = [(row, reference[row["seed"]]) for row in found if row["seed"] in reference]
    if not pairs:
        return []
    kept = [_kept(pairs, name) for name in ("loss", SCORE[task])]
    scores = [100 * row["after"][SCORE[task]] for row, _ in pairs]
    spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
    sent = statistics.mean(row["bytes_up"] for row, _ in pairs)
    cells = [task, clients, codec, len(pairs), *(f"{100 * share:.1f} %" for share in kept)]
    cells += [f"{statistics.mean(scores):.2f} ± {spread:.2f}", f"{sent:,.0f}"]
    return ["| " + " | ".join(map(str, cells)) + " |"]


def _kept(pairs: list[tuple[Row, Row]], name: str) -> float:
    """Return the gain of all pairs' first rows over that of their references."""
    gained = sum(row["after"][name] - reference["before"][name] for row, reference in pairs)
    return gained / sum(reference["after"][name] - reference["before"][name] for _, reference in pairs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--clients", type=int, nargs="+", choices=list(CLIENTS), default=list(CLIENTS))
    parser.add_argument("--codecs", nargs="+", choices=list(CODECS), default=list(CODECS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--set", nargs="*", default=[], help="overrides, section.key=value")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "codecs.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
