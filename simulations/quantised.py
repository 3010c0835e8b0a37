"""The same federations on a base in NF4 and on the unquantised one: the demo, and SST-2 on MiniLM.

    python simulations/quantised.py --data DIR --model DIR [--seeds 17 18 19] [--tasks ...] [--out FILE]

DIR of --data holds train.tsv, dev.tsv and test.tsv of SST-2, "sentence<TAB>label" without a header; DIR of
--model the MiniLM-L6 encoder. Both arms of a pair have the same seed, so the same partition, batches and
codec; frames are built on each arm's own base. Results are added to the output file run by run, so a stopped
script goes on. The unquantised SST-2 runs are those of `simulations/sst2.py`, arm "federated, IID, dense".
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from functools import partial

from experiment import Row, Rows, command_line, demo, last_metrics, sst2

from fedft.config import RunConfig

METRIC = {"demo": "exact_match", "sst2": "accuracy"}
QUANTS = ("none", "nf4")


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for quant in QUANTS:
                config = _config(arguments, task, seed, quant)
                rows.add({"task": task, "seed": seed, "quant": quant}, partial(_row, task, config))
                rows.write_table(_table(rows))


def _row(task: str, config: RunConfig) -> Row:
    metrics = last_metrics(config)
    return {"quality": metrics[METRIC[task]], "loss": metrics["loss"]}


def _config(arguments: argparse.Namespace, task: str, seed: int, quant: str) -> RunConfig:
    settings: dict[str, object] = {"seed": seed, "model.quant": quant}
    if task == "demo":
        return demo(arguments, settings)
    return sst2(arguments, settings | {"codec.name": "dense"})


def _table(rows: Rows) -> Iterator[str]:
    yield from ("# Quantised bases", "")
    yield "Written by `simulations/quantised.py`: exact match (demo) and accuracy (SST-2 on MiniLM-L6,"
    yield "updates uncoded) on the test records in % after the last round, with the linear layers of the"
    yield "base as they are and in NF4. The last column is NF4 less unquantised, in points."
    yield ""
    yield "| task | seed | unquantised | NF4 | difference |"
    yield "|---|---|---|---|---|"
    for task in METRIC:
        pairs = _pairs(rows, task)
        for seed, (dense, nf4) in pairs.items():
            yield f"| {task} | {seed} | {dense:.2f} | {nf4:.2f} | {nf4 - dense:+.2f} |"
        if len(pairs) > 1:
            mean = statistics.mean(nf4 - dense for dense, nf4 in pairs.values())
            yield f"| {task} | mean | | | {mean:+.2f} |"


def _pairs(rows: Rows, task: str) -> dict[int, tuple[float, float]]:
    """Return both arms' quality in % for each seed that has both."""
    found = {quant: {row["seed"]: row for row in rows.select(task=task, quant=quant)} for quant in QUANTS}
    dense, nf4 = (found[quant] for quant in QUANTS)
    return {seed: (100 * dense[seed]["quality"], 100 * nf4[seed]["quality"]) for seed in dense if seed in nf4}


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, "quantised.json")
    parser.add_argument("--tasks", nargs="+", choices=list(METRIC), default=list(METRIC))
    return parser.parse_args()


if __name__ == "__main__":
    main()
