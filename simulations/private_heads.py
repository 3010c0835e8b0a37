"""Private heads on frozen features: the head that fedft trains first beside a linear probe, at equal epsilon.

    python simulations/private_heads.py --data DIR --model DIR --cache DIR [--sets sst2 ...] [--seeds 17 ...]

DIR of --data holds sst2/{train,dev,test}.tsv, trec/{train,test}.txt and banking77/{train,test}.csv. The head
is trained as the configuration says that `fedft config init --private` writes, with the data's names alone
put in: three sites share the training records (IID), a site's noise is its own, and their means are averaged
as the server averages them. Features are computed once for each data set; mechanism, accounting and number of
steps are those of a run. The constants of the head's rule were chosen while looking at the test records of
these three sets with one or two seeds (docs/decisions/0013), which no epsilon pays for. The probe reads the
mean of the last layer, which is left where it is, at two settings: 40 steps at twice the number of classes
(for two classes logistic regression at rate 4), and the head's own steps and rate.
"""

from __future__ import annotations

import argparse
import csv
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import Row, Rows, command, percent
from recompute_epsilon import epsilon_of
from torch import Tensor

from fedft.config import RunConfig
from fedft.config.load import check
from fedft.config.schema import DataSection, HeadSection, ModelSection, TaskSection
from fedft.config.templates import template
from fedft.data.records import Records
from fedft.models.load import load_base
from fedft.models.pooled import PooledClassifier, PooledHead
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.accounting.events import PrivacyEvent, merge
from fedft.training.features import labels_of, pooled_features
from fedft.training.head_stage import measure_center_private, train_head_private
from fedft.training.private_schedule import PrivateRounds, private_round
from fedft.training.sequence_classification import SequenceClassification
from fedft.training.stages import Stage, stage_of, stage_weights

DELTA = 1e-5
Split = tuple[Tensor, Tensor]
"""Pooled states (n, k, d) and labels (n,)."""
State = dict[str, Tensor]


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


def features_of(
    arguments: argparse.Namespace, name: str, splits: Sequence[str] = ("train", "test")
) -> Features:
    """Compute the pooled states of a data set once, and keep them beside the results."""
    kept = arguments.cache / f"{name}-{'-'.join(splits)}.pt"
    if kept.exists():
        return Features(**torch.load(kept))
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


def configured(classes: int, epsilon: float, changes: dict[str, dict[str, Any]]) -> RunConfig:
    """Return the configuration that `config init --private` writes, for so many classes and this epsilon."""
    table = tomllib.loads(template("private"))
    table["task"]["labels"] = [f"class {number}" for number in range(classes)]
    table["privacy"]["epsilon"] = epsilon
    for section, keys in changes.items():
        table[section] = table.get(section, {}) | keys
    return check(table)


def federate(config: RunConfig, head: PooledHead, sites: list[Split]) -> list[PrivacyEvent]:
    """Train a head round by round as clients and server do; return what one site has released."""
    released: list[PrivacyEvent] = []
    states: dict[int, State] = {}
    for number in range(1, config.rounds.total + 1):
        plans = [private_round(config, len(labels), number) for _, labels in sites]
        work = [
            partial(_round, config, head, site, plan, number) for site, plan in zip(sites, plans, strict=True)
        ]
        _mean(head, work)
        states[number] = {name: value.clone() for name, value in head.state_dict().items()}
        weights = stage_weights(config, number)
        head.load_state_dict(
            {name: sum(w * states[n][name] for n, w in weights.items()) for name in states[number]}
        )
        released.append(plans[0].event())
    return released


def _round(config: RunConfig, head: PooledHead, site: Split, plan: PrivateRounds, number: int) -> None:
    if stage_of(config, number) is Stage.CENTER:
        measure_center_private(head, site[0], plan)
    else:
        train_head_private(head, *site, config.head, plan)


def _mean(head: PooledHead, work: list[Any]) -> None:
    """Let every site start from the same head, and take the mean of what they make of it."""
    start: State = {name: value.clone() for name, value in head.state_dict().items()}
    results: list[State] = []
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
    probe = arm in PROBES
    splits = {name: (p[:, -1:] if probe else p, y) for name, (p, y) in features.splits.items()}
    _, layers, width = splits["train"][0].shape
    config = configured(features.classes, epsilon, PROBES.get(arm, lambda _: {})(features.classes))
    head = PooledHead("mean", layers, width, features.classes, normalise=True)
    order = torch.randperm(len(splits["train"][1]), generator=torch.Generator().manual_seed(seed))
    parts = order.chunk(config.data.partition.clients)
    sites = [(splits["train"][0][part], splits["train"][1][part]) for part in parts]
    events = federate(config, head, sites)
    return {
        "accuracy": accuracy(head, splits["test"]),
        "spent": pld_epsilon(events, config.privacy.delta),
        "released": [event.as_dict() for event in merge(events)],
    }


def _plain(classes: int) -> dict[str, dict[str, Any]]:
    head = HeadSection(rounds=10, steps=4, learning_rate=2.0 * classes, momentum=0.0, center_share=0.0)
    return {"head": head.model_dump(), "rounds": {"total": 10}}


PROBES = {
    "linear probe, 40 steps at twice the rate": _plain,
    "linear probe, the head's steps and rate": lambda _: {
        "head": {"rounds": 10, "center_share": 0.0},
        "rounds": {"total": 10},
    },
}
ARMS = (*PROBES, "head")


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.out)
    for name in arguments.sets:
        features = features_of(arguments, name)
        for seed in arguments.seeds:
            for epsilon in arguments.epsilons:
                for arm in ARMS:
                    asked = {"set": name, "arm": arm, "epsilon": epsilon, "seed": seed}
                    rows.add(asked, partial(run, features, arm, epsilon, seed))
            rows.write_table(_table(rows))


def _table(rows: Rows) -> Iterator[str]:
    yield f"`{command()}`"
    yield from ("", "# Private heads on frozen MiniLM-L6 features, no public record", "")
    yield (
        "Three sites, delta 1e-5, unit one example, defaults of `fedft config init --private`. Test accuracy "
        "in %, mean and standard deviation over seeds; the last column is the largest epsilon that "
        "dp-accounting gives the releases of a run (`simulations/recompute_epsilon.py`)."
    )
    yield from ("", "| set | epsilon | arm | seeds | accuracy | spent |", "|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["set"] for row in rows.all):
        for epsilon in sorted({row["epsilon"] for row in rows.select(set=name)}):
            for arm in ARMS:
                if found := rows.select(set=name, arm=arm, epsilon=epsilon):
                    shown = percent(row["accuracy"] for row in found)
                    spent = max(epsilon_of(row["released"], DELTA) for row in found)
                    yield f"| {name} | {epsilon:g} | {arm} | {len(found)} | {shown} | {spent:.4f} |"


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
