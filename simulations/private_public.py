"""What private records add to public ones: SST-2, whose 872 sentences of dev.tsv are public and labelled.

    python simulations/private_public.py --data DIR --model DIR --cache DIR [--seeds 17 ...] [--starts 17 ...]

DIR of --data holds sst2/{train,dev,test}.tsv. The server trains adapters and head on the public sentences
(`[public]` of the configuration, the mean of the later half of the iterates), and a run starts from there.
Its rounds then train the head alone on the features of the body that has moved, which are computed once for
each start. The arm without privacy is what the public records alone can do, the same start. Everything else
is as in `private_heads.py`, whose configuration it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import Row, Rows, command, percent
from private_heads import DELTA, Split, State, accuracy, configured, features_of, federate, read
from recompute_epsilon import epsilon_of

from fedft.data.records import Records
from fedft.models.pooled import PooledClassifier, PooledHead
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.accounting.events import merge
from fedft.training.features import labels_of, pooled_features, start_head
from fedft.training.model_runtime import ModelRuntime
from fedft.training.public_start import train_on_public

RANK = 32
PUBLIC_STEPS = {"steps": 60, "batch_size": 96, "micro_batch_size": 32}
RATES = {"learning_rate": 3e-3, "head_learning_rate": 1e-2}
Start = tuple[dict[str, Split], State]
"""Pooled states and labels by split, and the head."""


FROM_PUBLIC: dict[str, dict[str, Any]] = {
    "data": {"public": "public.tsv"},
    "public": {"steps": 1},  # so that no round measures the center; the start is made already
    "head": {"rounds": 10},
    "rounds": {"total": 10},
}


def frozen_start(arguments: argparse.Namespace) -> Start:
    """Fit the head alone to the public sentences, on the features of the base."""
    splits = features_of(arguments, "sst2", ("train", "dev", "test")).splits
    head = _head(splits["dev"][0])
    start_head(head, *splits["dev"])
    return splits, {name: value.detach().clone() for name, value in head.state_dict().items()}


def start_of(arguments: argparse.Namespace, seed: int) -> Start:
    """Train on the public sentences with a seed and keep the features that come of it."""
    kept = arguments.cache / f"sst2-public-{seed}.pt"
    if kept.exists():
        found: Start = torch.load(kept)
        return found
    names: dict[str, dict[str, Any]] = {
        "model": {"source": str(arguments.model.resolve())},
        "task": {"max_length": 64, "labels": ["0", "1"]},
        "data": {
            part: str((arguments.data / "sst2" / f"{name}.tsv").resolve())
            for part, name in {"train": "train", "test": "test", "public": "dev"}.items()
        },
        "adapter": {"initialiser": "lora-sb", "rank": RANK, "samples": 872, "layers_at_once": 36},
        "public": PUBLIC_STEPS | RATES,
    }
    config = configured(2, 1.0, names).model_copy(update={"seed": seed})
    runtime = ModelRuntime(config)
    runtime.attach(runtime.build_frames())
    train_on_public(runtime)
    assert isinstance(runtime.base.model, PooledClassifier)
    splits = {}
    for name in ("train", "dev", "test"):
        rows = read(arguments.data, "sst2", name)
        samples, _ = runtime.task.prepare(Records(tuple(rows), (name,) * len(rows)))
        splits[name] = pooled_features(runtime.base.model, runtime.task, samples, 64), labels_of(samples)
    head = {name: value.detach().clone() for name, value in runtime.base.model.head.state_dict().items()}
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.save((splits, head), kept)
    return splits, head


def _head(pooled: torch.Tensor) -> PooledHead:
    _, layers, width = pooled.shape
    return PooledHead("mean", layers, width, 2, normalise=True)


def run(start: Start, epsilon: float, seed: int) -> Row:
    """Train the head privately from a start, once; with epsilon 0 not at all."""
    torch.set_num_threads(1)
    splits, state = start
    pooled, labels = splits["train"]
    head = _head(pooled)
    head.load_state_dict(state)
    if not epsilon:
        return {"accuracy": accuracy(head, splits["test"]), "spent": 0.0, "released": []}
    config = configured(2, epsilon, FROM_PUBLIC)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = order.chunk(config.data.partition.clients)
    events = federate(config, head, [(pooled[part], labels[part]) for part in parts])
    return {
        "accuracy": accuracy(head, splits["test"]),
        "spent": pld_epsilon(events, DELTA),
        "released": [event.as_dict() for event in merge(events)],
    }


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for first in arguments.starts:
        starts = {"body as it is": frozen_start(arguments), "adapters and head": start_of(arguments, first)}
        for arm, start in starts.items():
            rows.add(
                {"arm": arm, "epsilon": 0, "start": first, "seed": first}, partial(run, start, 0.0, first)
            )
            for seed in arguments.seeds:
                for epsilon in arguments.epsilons:
                    asked = {"arm": arm, "epsilon": epsilon, "start": first, "seed": seed}
                    rows.add(asked, partial(run, start, epsilon, seed))
        rows.write_table(_table(rows))


def _table(rows: Rows) -> Iterator[str]:
    yield f"`{command()}`"
    yield from ("", "# What private records add to public ones: SST-2 on MiniLM-L6", "")
    yield (
        "872 labelled public sentences; three sites, delta 1e-5, unit one example. Public: what the server "
        f"trains on them before the first round, the head alone or adapters of rank {RANK} and head. "
        "Private: rounds of the head alone from there. Test accuracy in %, mean and standard deviation over "
        "starts and seeds; the last column is the largest epsilon that dp-accounting gives a run's releases."
    )
    yield from ("", "| public | private | starts | seeds | accuracy | spent |", "|---|---|---|---|---|---|")
    for arm in dict.fromkeys(row["arm"] for row in rows.all):
        for epsilon in sorted({row["epsilon"] for row in rows.all}):
            found = rows.select(arm=arm, epsilon=epsilon)
            shown = percent(row["accuracy"] for row in found)
            spent = max(epsilon_of(row["released"], DELTA) if row["released"] else 0.0 for row in found)
            private = f"head, epsilon {epsilon:g}" if epsilon else "none"
            starts, seeds = (len({row[key] for row in found}) for key in ("start", "seed"))
            yield f"| {arm} | {private} | {starts} | {seeds} | {shown} | {spent:.4f} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = Path(__file__).parent / "results"
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--cache", type=Path, required=True, help="folder where features are kept")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parser.add_argument("--starts", type=int, nargs="+", default=[17], help="seeds of the public training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19, 20, 21])
    parser.add_argument("--out", type=Path, default=results / "private_public.json", help="JSON of the rows")
    return parser.parse_args()


if __name__ == "__main__":
    main()
