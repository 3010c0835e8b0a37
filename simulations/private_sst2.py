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
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ffa_lora import train_ffa

from fedft.config import RunConfig, load_config
from fedft.server.simulate import simulate
from fedft.store import RunStore

CONFIG = Path(__file__).parents[1] / "examples" / "sst2-minilm.toml"
COMMON: dict[str, object] = {
    "data.partition.clients": 3,
    "task.max_length": 48,
    "adapter.rank": 16,
    "training.batch_size": 32,
    "training.micro_batch_size": 16,
    "training.steps": 10,
    "rounds.total": 8,
    "rounds.weighting": "uniform",
    "codec.name": "dense",
    "privacy.mechanism": "example",
    "privacy.delta": 1e-5,
    "privacy.max_grad_norm": 1.0,
    "simulation.backend": "inline",
    "evaluation.every": 1000,
    "evaluation.before": False,
}
EPSILONS = (8.0, 3.0, 1.0)
FFA_RANK = 4
Arm = tuple[Callable[[RunConfig], float], dict[str, object]]


def main() -> None:
    arguments = _arguments()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    done = {(row["arm"], row["epsilon"], row["seed"]) for row in results}
    wanted = [(s, e, a) for s in arguments.seeds for e in arguments.epsilons for a in arguments.arms]
    for seed, epsilon, arm in wanted:
        if (arm, epsilon, seed) in done:
            continue
        measure, overrides = ARMS[arm]
        config = _config(arguments, overrides | {"seed": seed, "privacy.epsilon": epsilon})
        start = time.process_time()
        row = {"arm": arm, "epsilon": epsilon, "seed": seed, "accuracy": measure(config)}
        row |= {"cpu_seconds": round(time.process_time() - start)}
        results.append(row)
        print(json.dumps(row), flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(_table(results, _config(arguments, {})))


def federated(config: RunConfig) -> float:
    """Test accuracy after the last round."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        run = simulate(config, store=store)
        return store.rounds(run.id)[-1].evaluations[0].metrics["accuracy"]


# The scale decides how much of an example's clipped gradient is R's and how much the head's. A random frame
# catches far less of the gradient than a lora-sb frame does (measured on dev.tsv), so it has a larger scale;
# the product of scale and learning rate is the same for all.
LORA_SB: dict[str, object] = {"adapter.scale": 8.0, "training.learning_rate": 5e-4}
SKETCH: dict[str, object] = {"adapter.scale": 16.0, "training.learning_rate": 2.5e-4}
RANDOM: dict[str, object] = {"adapter.scale": 64.0, "training.learning_rate": 6.25e-5}
ARMS: dict[str, Arm] = {
    "Fed-SB, lora-sb (public)": (federated, {"adapter.initialiser": "lora-sb"} | LORA_SB),
    "Fed-SB, random": (federated, {"adapter.initialiser": "random"} | RANDOM),
    "Fed-SB, dp-sketch": (federated, {"adapter.initialiser": "dp-sketch", "adapter.samples": 256} | SKETCH),
    "FFA-LoRA": (partial(train_ffa, rank=FFA_RANK), {"training.learning_rate": 3e-3}),
}


def _config(arguments: argparse.Namespace, overrides: dict[str, object]) -> RunConfig:
    data = arguments.data.resolve()
    base = {
        "model.source": str(arguments.model.resolve()),
        "data.train": str(data / "train.tsv"),
        "data.public": str(data / "dev.tsv"),
        "data.test": str(data / arguments.test),
    }
    return load_config(CONFIG, COMMON | base | overrides | dict(pair.split("=", 1) for pair in arguments.set))


def _table(results: list[dict[str, object]], config: RunConfig) -> str:
    training, rounds = config.training, config.rounds
    lines = [
        "# Private SST-2 on MiniLM-L6",
        "",
        f"Written by `simulations/private_sst2.py`. {config.data.partition.clients} clients (IID) share all "
        f"6,920 training sentences, cut at {config.task.max_length} tokens; delta 1e-5, unit one example, "
        f"Poisson batches of {training.batch_size} expected, {rounds.total} rounds of {training.steps} "
        f"steps, clipping bound {config.privacy.max_grad_norm:g}. Fed-SB: rank {config.adapter.rank}, scales "
        f"and learning rates as in the script; head {training.head_learning_rate:g}; FFA-LoRA: rank "
        f"{FFA_RANK}. Test accuracy in % (1,821 sentences), mean and standard deviation over seeds.",
        "",
        "| arm | epsilon | seeds | accuracy | CPU s a run |",
        "|---|---|---|---|---|",
    ]
    for arm, epsilon in sorted({(str(row["arm"]), float(str(row["epsilon"]))) for row in results}):
        rows = [row for row in results if row["arm"] == arm and row["epsilon"] == epsilon]
        values = [100 * float(str(row["accuracy"])) for row in rows]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        cpu = statistics.mean(float(str(row["cpu_seconds"])) for row in rows)
        lines.append(
            f"| {arm} | {epsilon:g} | {len(rows)} | {statistics.mean(values):.2f}{spread} | {cpu:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--test", default="test.tsv", help="file to measure on; dev.tsv for tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--set", nargs="*", default=[], help="overrides, section.key=value")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "private_sst2.json")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
