"""SST-2 on MiniLM: federated (IID and skewed) beside central training and the head alone.

    python simulations/sst2.py --data DIR --model DIR [--seeds 17 18 19] [--arms ...] [--out FILE]

DIR of --data holds train.tsv, dev.tsv and test.tsv, "sentence<TAB>label" without a header. Every arm takes
the same number of optimiser steps from the same frame; with joined batches, central training sees in each
step what the four clients see together. Results are added to the output file arm by arm, so a stopped
script goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial

from experiment import Row, Rows, command_line, last_metrics, percent, sst2

from fedft.config import RunConfig
from fedft.simulation.baselines import train_pooled
from fedft.training.model_runtime import ModelRuntime


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for seed in arguments.seeds:
        for arm in arguments.arms:
            measure, settings = ARMS[arm]
            config = sst2(arguments, {**settings, "seed": seed})
            rows.add({"arm": arm, "seed": seed}, partial(_row, measure, config))
    rows.write_table(_table(rows, sst2(arguments, {})))


def _row(measure: Callable[[RunConfig], float], config: RunConfig) -> Row:
    return {"accuracy": measure(config)}


def federated(config: RunConfig) -> float:
    """Test accuracy after the last round."""
    return last_metrics(config)["accuracy"]


def central(config: RunConfig, *, join_batches: bool = False) -> float:
    """Test accuracy of the same adapter trained on the pooled data with the same number of steps."""
    runtime = ModelRuntime(config)
    runtime.attach(runtime.build_frames())
    train_pooled(runtime, join_batches=join_batches)
    return runtime.evaluate(runtime.data.test[0]).values()["accuracy"]


def head_alone(config: RunConfig) -> float:
    """Test accuracy of the frozen encoder with a trained head."""
    runtime = ModelRuntime(config)
    runtime.attach(runtime.build_frames())
    runtime.load(runtime.base_state())
    train_pooled(runtime, head_only=True)
    return runtime.evaluate(runtime.data.test[0]).values()["accuracy"]


Arm = tuple[Callable[[RunConfig], float], dict[str, object]]
SKEW: dict[str, object] = {"data.partition.kind": "dirichlet", "data.partition.alpha": 0.5}
DENSE: dict[str, object] = {"codec.name": "dense"}
ARMS: dict[str, Arm] = {
    "federated, IID, dense": (federated, DENSE),
    "federated, Dirichlet(0.5), dense": (federated, DENSE | SKEW),
    "federated, IID, ternary": (federated, {}),
    "federated, Dirichlet(0.5), ternary": (federated, SKEW),
    "central": (central, {}),
    "central, joined batches": (partial(central, join_batches=True), {}),
    "head alone": (head_alone, {}),
}


def _table(rows: Rows, config: RunConfig) -> Iterator[str]:
    yield from ("# SST-2 on MiniLM-L6", "")
    yield (
        f"Written by `simulations/sst2.py`. Rank {config.adapter.rank}, {config.adapter.initialiser}, "
        f"{config.data.partition.clients} clients, {config.rounds.total} rounds of "
        f"{config.training.steps} steps, batch {config.training.batch_size}, "
        f"learning rate {config.training.learning_rate}. Test accuracy in %, mean and standard deviation."
    )
    yield from ("", "| arm | seeds | accuracy | CPU s a run |", "|---|---|---|---|")
    for arm in ARMS:
        if found := rows.select(arm=arm):
            cpu = statistics.mean(row["cpu_seconds"] for row in found)
            yield f"| {arm} | {len(found)} | {percent(row['accuracy'] for row in found)} | {cpu:.0f} |"


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, "sst2.json")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
