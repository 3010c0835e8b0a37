"""Private SST-2 on MiniLM: Fed-SB from several frames beside FFA-LoRA, at equal epsilon.

    python simulations/private_sst2.py --data DIR --model DIR [--seeds 17 18 19] [--arms ...] [--out FILE]

DIR of --data holds train.tsv, dev.tsv and test.tsv, "sentence<TAB>label" without a header. Three clients
share all of train.tsv; dev.tsv plays the public sample of `lora-sb`. Steps, schedule and the product of scale
and learning rate are near those of the run without privacy; nothing was tuned under noise. Every arm has the
same budget, batches and steps; what an arm spends on its frame it has not for training. Results are
added to the output file run by run, so a stopped script goes on.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial

from experiment import Row, Rows, command_line, last_metrics, percent, sst2
from ffa_lora import train_ffa

from fedft.config import RunConfig

COMMON: dict[str, object] = {
    "data.partition.clients": 3,
    "task.max_length": 48,
    "adapter.rank": 8,
    "training.batch_size": 128,
    "training.micro_batch_size": 32,
    "training.steps": 3,
    "rounds.total": 8,
    "rounds.weighting": "uniform",
    "codec.name": "dense",
    "privacy.mechanism": "example",
    "privacy.delta": 1e-5,
    "privacy.max_grad_norm": 1.0,
}
EPSILONS = (8.0, 3.0, 1.0)
FFA_RANK = 4
Arm = tuple[Callable[[RunConfig], float], dict[str, object]]


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for seed in arguments.seeds:
        for epsilon in arguments.epsilons:
            for arm in arguments.arms:
                measure, settings = ARMS[arm]
                config = _config(arguments, settings | {"seed": seed, "privacy.epsilon": epsilon})
                asked = {"arm": arm, "epsilon": epsilon, "seed": seed}
                rows.add(asked, partial(_row, measure, config))
                rows.write_table(_table(rows, _config(arguments, {})))


def _row(measure: Callable[[RunConfig], float], config: RunConfig) -> Row:
    return {"accuracy": measure(config)}


def federated(config: RunConfig) -> float:
    """Test accuracy after the last round."""
    return last_metrics(config)["accuracy"]


# The scale decides how much of an example's clipped gradient is R's and how much the head's. A random frame
# catches far less of the gradient than a lora-sb frame does (measured on dev.tsv), so it has a larger scale;
# the product of scale and learning rate is the same for all.
LORA_SB: dict[str, object] = {"adapter.scale": 8.0, "training.learning_rate": 3e-2}
SKETCH: dict[str, object] = {"adapter.scale": 64.0, "training.learning_rate": 4e-3}
RANDOM: dict[str, object] = {"adapter.scale": 256.0, "training.learning_rate": 2.5e-3}
ARMS: dict[str, Arm] = {
    "Fed-SB, lora-sb (public)": (federated, {"adapter.initialiser": "lora-sb"} | LORA_SB),
    "Fed-SB, random": (federated, {"adapter.initialiser": "random"} | RANDOM),
    "Fed-SB, dp-sketch": (federated, {"adapter.initialiser": "dp-sketch", "adapter.samples": 512} | SKETCH),
    "FFA-LoRA": (partial(train_ffa, rank=FFA_RANK), {"training.learning_rate": 1e-2}),
}


def _config(arguments: argparse.Namespace, settings: dict[str, object]) -> RunConfig:
    test = {"data.test": str((arguments.data / arguments.test).resolve())}
    return sst2(arguments, COMMON | test | settings)


def _table(rows: Rows, config: RunConfig) -> Iterator[str]:
    training, rounds = config.training, config.rounds
    yield from ("# Private SST-2 on MiniLM-L6", "")
    yield (
        f"Written by `simulations/private_sst2.py`. {config.data.partition.clients} clients (IID) share all "
        f"6,920 training sentences, cut at {config.task.max_length} tokens; delta 1e-5, unit one example, "
        f"Poisson batches of {training.batch_size} expected, {rounds.total} rounds of {training.steps} "
        f"steps, clipping bound {config.privacy.max_grad_norm:g}. Fed-SB: rank {config.adapter.rank}, scales "
        f"and learning rates as in the script; head {training.head_learning_rate:g}; FFA-LoRA: rank "
        f"{FFA_RANK}. Test accuracy in % (1,821 sentences), mean and standard deviation over seeds."
    )
    yield from ("", "| arm | epsilon | seeds | accuracy | CPU s a run |", "|---|---|---|---|---|")
    for arm in ARMS:
        for epsilon in sorted({row["epsilon"] for row in rows.select(arm=arm)}):
            found = rows.select(arm=arm, epsilon=epsilon)
            shown = percent(row["accuracy"] for row in found)
            cpu = statistics.mean(row["cpu_seconds"] for row in found)
            yield f"| {arm} | {epsilon:g} | {len(found)} | {shown} | {cpu:.0f} |"


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, "private_sst2.json")
    parser.add_argument("--test", default="test.tsv", help="file to measure on; dev.tsv for tuning")
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
