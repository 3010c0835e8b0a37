"""SST-2 on MiniLM: federated (IID and skewed) beside central training and the head alone.

    python simulations/sst2.py --data DIR --model DIR [--seeds 17 18 19] [--arms ...] [--out FILE]

DIR of --data holds train.tsv, dev.tsv and test.tsv, "sentence<TAB>label" without a header. Every arm takes
the same number of optimiser steps from the same frame; with joined batches, central training sees in each
step what the four clients see together. Results are added to the output file arm by arm, so a stopped
script goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fedft.config import RunConfig, load_config
from fedft.server.compare import train_pooled
from fedft.server.simulate import simulate
from fedft.store import RunStore
from fedft.training.session import Session

CONFIG = Path(__file__).parents[1] / "examples" / "sst2-minilm.toml"


def main() -> None:
    arguments = _arguments()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    done = {(row["arm"], row["seed"]) for row in results}
    for seed in arguments.seeds:
        for arm in arguments.arms:
            if (arm, seed) in done:
                continue
            config = _config(arguments, seed, ARMS[arm][1])
            start = time.process_time()
            row = {"arm": arm, "seed": seed, "accuracy": ARMS[arm][0](config)}
            row |= {"cpu_seconds": round(time.process_time() - start)}
            results.append(row)
            print(json.dumps(row), flush=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(_table(results, _config(arguments, 17, {})))


def federated(config: RunConfig) -> float:
    """Test accuracy after the last round."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        run = simulate(config, store=store)
        return store.rounds(run.id)[-1].evaluations[0].metrics["accuracy"]


def central(config: RunConfig, *, join_batches: bool = False) -> float:
    """Test accuracy of the same adapter trained on the pooled data with the same number of steps."""
    session = Session(config)
    session.attach(session.build_frames())
    train_pooled(session, join_batches=join_batches)
    return session.evaluate(session.test[0]).values()["accuracy"]


def head_alone(config: RunConfig) -> float:
    """Test accuracy of the frozen encoder with a trained head."""
    session = Session(config)
    session.attach(session.build_frames())
    session.load(session.base_state())
    train_pooled(session, head_only=True)
    return session.evaluate(session.test[0]).values()["accuracy"]


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


def _config(arguments: argparse.Namespace, seed: int, overrides: dict[str, object]) -> RunConfig:
    data = arguments.data.resolve()
    base = {
        "seed": seed,
        "model.source": str(arguments.model.resolve()),
        "data.train": str(data / "train.tsv"),
        "data.public": str(data / "dev.tsv"),
        "data.test": str(data / "test.tsv"),
        "simulation.backend": "inline",
        "evaluation.every": 1000,
        "evaluation.before": False,
    }
    return load_config(CONFIG, base | overrides | dict(pair.split("=", 1) for pair in arguments.set))


def _table(results: list[dict[str, object]], config: RunConfig) -> str:
    lines = [
        "# SST-2 on MiniLM-L6",
        "",
        f"Written by `simulations/sst2.py`. Rank {config.adapter.rank}, {config.adapter.initialiser}, "
        f"{config.data.partition.clients} clients, {config.rounds.total} rounds of "
        f"{config.training.steps} steps, batch {config.training.batch_size}, "
        f"learning rate {config.training.learning_rate}. Test accuracy in %, mean and standard deviation.",
        "",
        "| arm | seeds | accuracy | CPU s a run |",
        "|---|---|---|---|",
    ]
    for arm in dict.fromkeys(str(row["arm"]) for row in results):
        rows = [row for row in results if row["arm"] == arm]
        values = [100 * float(str(row["accuracy"])) for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        cpu = statistics.mean(float(str(row["cpu_seconds"])) for row in rows)
        lines.append(f"| {arm} | {len(rows)} | {statistics.mean(values):.2f} ± {spread:.2f} | {cpu:.0f} |")
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--set", nargs="*", default=[], help="overrides, section.key=value")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sst2.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
