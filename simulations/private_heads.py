"""Private heads on frozen features: the head that fedft trains first beside a linear probe, at equal epsilon.

    python simulations/private_heads.py --data DIR --model DIR --cache DIR [--sets sst2 ...] [--seeds 17 ...]

DIR of --data holds sst2/{train,dev,test}.tsv, trec/{train,test}.txt and banking77/{train,test}.csv. Three
sites share the training records (IID); a site's noise is its own, and their means are averaged as the server
averages them. Features are computed once for each data set; mechanism, accounting and number of steps are
those of a run. No setting was searched for the head: rate and steps come from `head_rate` and
`proposed_head_steps`. The probe reads the mean of the last layer, which is left where it is, at two settings:
40 steps at twice the number of classes (for two classes logistic regression at rate 8), and the head's own.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from experiment import Row, Rows, percent
from torch import Tensor

from fedft.config.schema import DataSection, HeadSection, ModelSection, TaskSection
from fedft.data.records import Records
from fedft.models.load import load_base
from fedft.models.pooled import PooledClassifier, PooledHead
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.accounting.planning import calibrate
from fedft.privacy.mechanisms.sampling import PoissonSampler
from fedft.training.features import labels_of, pooled_features, start_head
from fedft.training.head_plan import proposed_head_steps
from fedft.training.head_stage import measure_center_private, train_head_private
from fedft.training.private_schedule import PrivateRounds
from fedft.training.sequence_classification import SequenceClassification

SITES, DELTA, CENTER_SHARE = 3, 1e-5, 0.05
Split = tuple[Tensor, Tensor]
"""Pooled states (n, k, d) and labels (n,)."""


@dataclass(frozen=True)
class Features:
    """The pooled states of one data set, and how many classes it has."""

    splits: dict[str, Split]
    classes: int


def read(folder: Path, name: str, split: str) -> list[dict[str, str]]:
    """Return the records of one of the three data sets."""
    if name == "sst2":
        lines = (folder / "sst2" / f"{split}.tsv").read_text().splitlines()
        return [dict(zip(("text", "label"), line.split("\t"), strict=True)) for line in lines]
    if name == "trec":
        lines = (folder / "trec" / f"{split}.txt").read_text("latin-1").splitlines()
        return [dict(zip(("label", "text"), line.split(" ", 1), strict=True)) for line in lines]
    with (folder / "banking77" / f"{split}.csv").open(newline="") as file:
        return [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]


def features_of(arguments: argparse.Namespace, name: str) -> Features:
    """Compute the pooled states of a data set once, and keep them beside the results."""
    kept = arguments.cache / f"{name}.pt"
    if kept.exists():
        return Features(**torch.load(kept))
    splits = ["train", "test", *(["dev"] if name == "sst2" else [])]
    records = {split: read(arguments.data, name, split) for split in splits}
    labels = tuple(sorted({row["label"] for row in records["train"]}))
    section = TaskSection(
        kind="sequence-classification", labels=labels, max_length=64, too_long="truncate", pooling="mean"
    )
    base = load_base(ModelSection(source=str(arguments.model)), section, 17)
    assert isinstance(base.model, PooledClassifier)
    task = SequenceClassification(section, DataSection(), base.tokenizer)
    found: dict[str, Split] = {}
    for split, rows in records.items():
        samples, _ = task.prepare(Records(tuple(rows), tuple(f"{name}/{split}" for _ in rows)))
        found[split] = pooled_features(base.model, task, samples, 64), labels_of(samples)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.save({"splits": found, "classes": len(labels)}, kept)
    return Features(found, len(labels))


def federate(
    head: PooledHead, sites: list[Split], section: HeadSection, budget: Budget, *, rounds: int, center: bool
) -> float:
    """Train a head as the first rounds of a run do; return epsilon as dp-accounting alone computes it."""
    sigma, share = calibrate(budget, PrivacyEvent(1.0)), CENTER_SHARE if center else 0.0
    total = rounds * section.steps
    noise = sigma * (total / (1 - share)) ** 0.5
    accountant = PLDAccountant()
    if center:
        accountant.compose(GaussianDpEvent(sigma / share**0.5))
        plans = [PrivateRounds(_all(pooled), 1, 1, sigma / share**0.5) for pooled, _ in sites]
        _mean(
            head, [partial(measure_center_private, head, s[0], p) for s, p in zip(sites, plans, strict=True)]
        )
    accountant.compose(GaussianDpEvent(noise / total**0.5))
    for _ in range(rounds):
        work = [
            partial(
                train_head_private,
                head,
                *site,
                section,
                PrivateRounds(_all(site[0]), section.steps, rounds, noise),
            )
            for site in sites
        ]
        _mean(head, work)
    return float(accountant.get_epsilon(budget.delta))


def _all(pooled: Tensor) -> PoissonSampler:
    return PoissonSampler(len(pooled), len(pooled))


def _mean(head: PooledHead, work: list[Any]) -> None:
    """Let every site start from the same head, and take the mean of what they make of it."""
    start = {name: value.clone() for name, value in head.state_dict().items()}
    results = []
    for job in work:
        head.load_state_dict(start)
        job()
        results.append({name: value.clone() for name, value in head.state_dict().items()})
    head.load_state_dict({name: torch.stack([r[name] for r in results]).mean(0) for name in start})


def accuracy(head: PooledHead, split: Split) -> float:
    """Return the share of right classes."""
    with torch.no_grad():
        return float((head(split[0]).argmax(1) == split[1]).float().mean())


def run(features: Features, arm: str, epsilon: float, seed: int) -> Row:
    """Measure one arm once."""
    torch.set_num_threads(1)
    probe, public = arm.startswith("linear probe"), "public" in arm
    splits = {name: (p[:, -1:] if probe else p, y) for name, (p, y) in features.splits.items()}
    _, layers, width = splits["train"][0].shape
    head = PooledHead("mean", layers, width, features.classes, normalise=True)
    if public:
        start_head(head, *splits["dev"])
    if arm == "public alone":
        return {"accuracy": accuracy(head, splits["test"]), "spent": 0.0}
    order = torch.randperm(len(splits["train"][1]), generator=torch.Generator().manual_seed(seed))
    sites = [(splits["train"][0][part], splits["train"][1][part]) for part in order.chunk(SITES)]
    budget = Budget(epsilon, DELTA)
    steps = proposed_head_steps(
        calibrate(budget, PrivacyEvent(1.0)),
        examples=len(sites[-1][1]),
        clients=SITES,
        classes=features.classes,
    )
    section = HeadSection(steps=max(1, round(steps / 10)))
    if arm == PROBES[0]:
        section = HeadSection(steps=4, learning_rate=2.0 * features.classes)
    spent = federate(head, sites, section, budget, rounds=10, center=not (probe or public))
    return {"accuracy": accuracy(head, splits["test"]), "spent": spent}


PROBES = ("linear probe, 40 steps at twice the rate", "linear probe, the head's steps and rate")
ARMS = (*PROBES, "head", "public alone", "head, from public")


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for name in arguments.sets:
        features = features_of(arguments, name)
        for seed in arguments.seeds:
            for epsilon in arguments.epsilons:
                for arm in ARMS if "dev" in features.splits else ARMS[:3]:
                    asked = {"set": name, "arm": arm, "epsilon": epsilon, "seed": seed}
                    rows.add(asked, partial(run, features, arm, epsilon, seed))
        rows.write_table(_table(rows, arguments.epsilons))


def _table(rows: Rows, epsilons: list[float]) -> Iterator[str]:
    yield from ("# Private heads on frozen MiniLM-L6 features", "")
    yield (
        f"Written by `simulations/private_heads.py`: {SITES} sites, delta {DELTA:g}, unit one example, ten "
        "rounds. Test accuracy in %, mean and standard deviation over seeds; the last column is the largest "
        "epsilon that dp-accounting gives the releases of a run, recomputed from their noise alone."
    )
    yield from ("", "| set | arm | epsilon | seeds | accuracy | spent |", "|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["set"] for row in rows.all):
        for arm in ARMS:
            for epsilon in epsilons:
                if found := rows.select(set=name, arm=arm, epsilon=epsilon):
                    shown = percent(row["accuracy"] for row in found)
                    spent = max(row["spent"] for row in found)
                    yield f"| {name} | {arm} | {epsilon:g} | {len(found)} | {shown} | {spent:.3f} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = Path(__file__).parent / "results"
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--cache", type=Path, required=True, help="folder where features are kept")
    parser.add_argument("--sets", nargs="+", default=["sst2", "trec", "banking77"])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19, 20, 21])
    parser.add_argument("--out", type=Path, default=results / "private_heads.json", help="JSON of the rows")
    return parser.parse_args()


if __name__ == "__main__":
    main()
