"""Compares what codecs cost in learning: the demo and SST-2/MiniLM, four and ten clients, three seeds.

    python simulations/compare_codecs.py --data DIR --model DIR [--tasks ...] [--clients ...] [--codecs ...]

DIR of --data holds SST-2's train.tsv, dev.tsv and test.tsv ("sentence<TAB>label", no header). The codecs
of one task, number of clients and seed start from the same state and see the same samples. Rows are added
to the output file one by one, so a stopped script goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from functools import partial

from experiment import Row, Rows, command_line, demo, federate, percent, sst2

from fedft.config import RunConfig

REFERENCE = "dense"
CODECS: dict[str, dict[str, object]] = {
    REFERENCE: {"codec.name": "dense"},
    "ternary 10 %, error feedback": {"codec.name": "ternary"},
    "ternary 10 %": {"codec.name": "ternary", "codec.error_feedback": False},
    "rotated, 1 bit": {"codec.name": "rotated1"},
}
SCORE = {"demo": "exact_match", "sst2": "accuracy"}
SPLIT: dict[str, object] = {"data.partition.kind": "dirichlet", "data.partition.alpha": 0.5}
TASKS: dict[str, dict[str, object]] = {
    "demo": {"data.partition.field": "family"},
    "sst2": {"adapter.layers_at_once": 36},
}
# Rounds, steps and batch. Ten clients take smaller batches, so that a step costs about the same. What error
# feedback holds back arrives rounds later, so a run needs many more rounds than one over the density.
SIZES = {
    ("demo", 4): (40, 5, 16),
    ("demo", 10): (40, 5, 8),
    ("sst2", 4): (40, 2, 8),
    ("sst2", 10): (80, 1, 4),
}


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for clients in arguments.clients:
                for codec in arguments.codecs:
                    asked = {"task": task, "clients": clients, "codec": codec, "seed": seed}
                    rows.add(asked, partial(_measure, _config(arguments, **asked)))
    rows.write_table(_table(rows))


def _measure(config: RunConfig) -> Row:
    rounds = federate(config)
    sent = [update.bytes_up for record in rounds[1:] for update in record.updates]
    before = [dict(evaluation.metrics) for evaluation in rounds[0].evaluations]
    after = dict(rounds[-1].evaluations[0].metrics)
    return {
        **({"before": before[0]} if before else {}),
        "after": after,
        "bytes_up": round(statistics.mean(sent)),
    }


def _config(arguments: argparse.Namespace, *, task: str, clients: int, codec: str, seed: int) -> RunConfig:
    rounds, steps, batch = SIZES[task, clients]
    settings: dict[str, object] = {
        "seed": seed,
        "data.partition.clients": clients,
        "rounds.total": rounds,
        "training.steps": steps,
        "training.batch_size": batch,
        "training.micro_batch_size": batch,
        "evaluation.before": codec == REFERENCE,  # all codecs start from the same state
    }
    settings |= TASKS[task] | SPLIT | CODECS[codec]
    return demo(arguments, settings) if task == "demo" else sst2(arguments, settings)


def _table(rows: Rows) -> Iterator[str]:
    yield from ("# What codecs cost in learning", "")
    yield "Written by `simulations/compare_codecs.py`. Kept: what the test loss fell by over the run,"
    yield "summed over the seeds, as a share of what it fell by uncompressed; the same for the score, which"
    yield "is coarser (accuracy; exact match in the demo). Dirichlet(0.5) split; rounds, steps and batches"
    yield "as in the script; bytes up are a client's in a round."
    yield ""
    yield "| task | clients | rounds | codec | seeds | kept (loss) | kept (score) | score | bytes up |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for task, clients in SIZES:
        for codec in CODECS:
            yield from _line(rows, task, clients, codec)


def _line(rows: Rows, task: str, clients: int, codec: str) -> Iterator[str]:
    found = rows.select(task=task, clients=clients, codec=codec)
    reference = {row["seed"]: row for row in rows.select(task=task, clients=clients, codec=REFERENCE)}
    pairs = [(row, reference[row["seed"]]) for row in found if row["seed"] in reference]
    if not pairs:
        return
    score = SCORE[task]
    kept = [f"{100 * _kept(pairs, name):.1f} %" for name in ("loss", score)]
    sent = statistics.mean(row["bytes_up"] for row, _ in pairs)
    shown = percent(row["after"][score] for row, _ in pairs)
    run = f"{task} | {clients} | {SIZES[task, clients][0]}"
    yield f"| {run} | {codec} | {len(pairs)} | {kept[0]} | {kept[1]} | {shown} | {sent:,.0f} |"


def _kept(pairs: list[tuple[Row, Row]], name: str) -> float:
    """Return the gain of all pairs' first rows over that of their references."""
    gained = sum(row["after"][name] - reference["before"][name] for row, reference in pairs)
    return gained / sum(reference["after"][name] - reference["before"][name] for _, reference in pairs)


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, "compare_codecs.json")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--clients", type=int, nargs="+", choices=[4, 10], default=[4, 10])
    parser.add_argument("--codecs", nargs="+", choices=list(CODECS), default=list(CODECS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
