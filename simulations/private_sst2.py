"""Private SST-2 on MiniLM: Fed-SB from several frames beside FFA-LoRA, at equal epsilon.

    python simulations/private_sst2.py --data DIR --model DIR [--seeds 17 18 19] [--arms ...] [--out FILE]

DIR of --data holds train.tsv, dev.tsv and test.tsv, "sentence<TAB>label" without a header. Three clients
share all of train.tsv; dev.tsv plays the public sample of `lora-sb`. Every arm has the same budget, batches
and steps; what an arm spends on its frame it has not for training. Scales and learning rates were chosen for
each arm by three to six runs at epsilon 8 with seed 17, measured on dev.tsv (`--test dev.tsv`); the choosing
is not paid for from the budget, as it is not in the published tables. Results are added to the output file
run by run, so a stopped script goes on.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial

from experiment import Row, Rows, command_line, last_metrics, percent, sst2

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
                settings = settings | (LITTLE_BUDGET.get(arm, {}) if epsilon <= 3 else {})
                config = _config(arguments, settings | {"seed": seed, "privacy.epsilon": epsilon})
                asked = {"arm": arm, "epsilon": epsilon, "seed": seed}
                rows.add(asked, partial(_row, measure, config))
                rows.write_table(_table(rows, _config(arguments, {})))


def _row(measure: Callable[[RunConfig], float], config: RunConfig) -> Row:
    return {"accuracy": measure(config)}


def federated(config: RunConfig) -> float:
    """Test accuracy after the last round."""
    return last_metrics(config)["accuracy"]


# The scale decides how much of an example's clipped gradient is R's and how much the head's. At scale 1 the
# median norm of R's gradient is 0.27 with a lora-sb frame of rank 8 and 0.011 with a random one, and the
# head's is 1.1: the scales bring R's above it. Rank 16 has nearly the same gradient (0.29), twice the noise.
LORA_SB: dict[str, object] = {"adapter.scale": 8.0, "training.learning_rate": 3e-2}
SKETCH: dict[str, object] = {"adapter.scale": 64.0, "training.learning_rate": 4e-3}
RANDOM: dict[str, object] = {"adapter.scale": 256.0, "training.learning_rate": 2.5e-3}
# This scale gives the entries of s A, in a layer of 384 inputs, the standard deviation 1/√r = 0.5 of the
# Gaussian A with which the rows of the results file were measured.
FFA_LORA: dict[str, object] = {
    "method": "ffa-lora",
    "adapter.rank": FFA_RANK,
    "adapter.scale": 17.0,
    "training.learning_rate": 1e-2,
}
ARMS: dict[str, Arm] = {
    "Fed-SB, lora-sb (public)": (federated, {"adapter.initialiser": "lora-sb"} | LORA_SB),
    "Fed-SB, random": (federated, {"adapter.initialiser": "random"} | RANDOM),
    "Fed-SB, dp-sketch": (federated, {"adapter.initialiser": "dp-sketch", "adapter.samples": 512} | SKETCH),
    "FFA-LoRA": (federated, FFA_LORA),
}

# At epsilon 3 and below a sketch's frame is nearly as random as a random one (one more run on dev.tsv, at 3).
LITTLE_BUDGET: dict[str, dict[str, object]] = {"Fed-SB, dp-sketch": RANDOM}


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
        f"{FFA_RANK}. Test accuracy in % (1,821 sentences; 50 % is chance), mean and standard deviation over "
        f"seeds; noise and batches differ between runs of one seed."
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
