"""What must hold between keys of a configuration; what one key may hold stands in the schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedft.registries import AGGREGATION_RULES, AVERAGES, METHODS, PRIVACY_MODELS, TASKS

if TYPE_CHECKING:
    from fedft.config.schema import RunConfig
    from fedft.methods.interface import FrameFacts


DEMO = "demo"
MIN_MEMBERS, MAX_MEMBERS = 3, 256
"""Clients whose updates can be masked together."""


@dataclass(frozen=True)
class Contradiction:
    """``path`` is the key to change; ``others`` are further keys that the message depends on."""

    path: str
    message: str
    others: tuple[str, ...] = ()


class ContradictionError(ValueError):
    """All contradictions of one configuration."""

    def __init__(self, found: Sequence[Contradiction]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(f"{item.path}: {item.message}" for item in found))


def contradictions(config: RunConfig) -> Iterator[Contradiction]:
    """Yield everything in which a configuration contradicts itself."""
    method = METHODS.get(config.method)
    frame = method.frame_facts(config)
    yield from method.contradictions(config)
    yield from TASKS.get(config.task.kind).contradictions(config)
    yield from _model(config, frame)
    yield from _training(config)
    yield from _public(config)
    yield from _rounds(config)
    aggregation = config.aggregation
    rule = AGGREGATION_RULES.get(aggregation.rule).configured(aggregation.options)
    yield from rule.contradictions(config)
    yield from _head(config)
    yield from _data(config)
    yield from _evaluation(config)
    yield from _secagg(config, frame)
    privacy = PRIVACY_MODELS.get(config.privacy.mechanism)
    yield from privacy.forbids(config)
    if not privacy.charged_at_client and frame.from_sketches:
        yield Contradiction(
            "privacy.mechanism",
            f'a {frame.name} frame is made of private gradients; set "example", or another '
            "adapter.initialiser",
            ("adapter.initialiser",),
        )


def _model(config: RunConfig, frame: FrameFacts) -> Iterator[Contradiction]:
    if config.model.quant != "none" and frame.changes_base:
        yield Contradiction(
            "adapter.initialiser",
            f"{frame.name} changes the base weights, which {config.model.quant} cannot take; use another",
            ("model.quant",),
        )


def _training(config: RunConfig) -> Iterator[Contradiction]:
    training = config.training
    if training.steps == 0 and training.epochs == 0:
        yield Contradiction(
            "training.steps",
            "steps and epochs are both 0; one of them must be positive",
            ("training.epochs",),
        )
    if training.micro_batch_size > training.batch_size:
        yield Contradiction(
            "training.micro_batch_size",
            f"{training.micro_batch_size} is over training.batch_size {training.batch_size}",
            ("training.batch_size",),
        )


def _public(config: RunConfig) -> Iterator[Contradiction]:
    public = config.public
    if public.micro_batch_size > public.batch_size:
        yield Contradiction(
            "public.micro_batch_size",
            f"{public.micro_batch_size} is over public.batch_size {public.batch_size}",
            ("public.batch_size",),
        )
    if reads_public(config) and not _own(config, config.data.public):
        yield Contradiction(
            "data.public",
            "the run's start is made of public records (a frame of gradients, or public.steps); name them",
            ("adapter.initialiser", "data.train", "public.steps", "public.epochs"),
        )


def reads_public(config: RunConfig) -> bool:
    """Whether a run's start is made of public records; they then give a pooled head its center and start."""
    return config.public.trains or METHODS.get(config.method).frame_facts(config).needs == "gradients"


def _rounds(config: RunConfig) -> Iterator[Contradiction]:
    rounds, clients = config.rounds, config.data.partition.clients
    if rounds.cohort and rounds.min_replies > rounds.cohort:
        yield Contradiction(
            "rounds.min_replies",
            f"{rounds.min_replies} is over rounds.cohort {rounds.cohort}",
            ("rounds.cohort",),
        )
    weights = AVERAGES.get(rounds.average).weights(rounds.total, rounds.options)
    averaged = sum(weight > 0 for weight in weights)
    if 0 < config.store.keep_states < averaged:
        yield Contradiction(
            "store.keep_states",
            f"{rounds.average} averages the states of up to {averaged} rounds; keep as many, or 0: all",
            ("rounds.average", "rounds.total"),
        )
    for key in ("cohort", "min_clients", "min_replies"):
        if getattr(rounds, key) > clients:
            yield Contradiction(
                f"rounds.{key}",
                f"{getattr(rounds, key)} is over data.partition.clients {clients}",
                ("data.partition.clients",),
            )


def _head(config: RunConfig) -> Iterator[Contradiction]:
    """What the rounds of the head alone need."""
    head, task = config.head, config.task
    if head.rounds > config.rounds.total:
        yield Contradiction(
            "head.rounds",
            f"{head.rounds} is over rounds.total {config.rounds.total}",
            ("rounds.total",),
        )
    pooled = TASKS.get(task.kind).classifies_texts and task.pooling != "model"
    if head.rounds and not (pooled and task.normalise and config.adapter.train_head):
        yield Contradiction(
            "head.rounds",
            "the head is trained alone on pooled, normalised features of whole texts only; set 0, or "
            "task.pooling, task.normalise and adapter.train_head",
            ("task.kind", "task.pooling", "task.normalise", "adapter.train_head"),
        )
    if head.rounds == 1 and head.center_share and not reads_public(config):
        yield Contradiction(
            "head.rounds",
            "the one round would measure the mean of the features, and none would train the head; set 2",
            ("head.center_share",),
        )


def _data(config: RunConfig) -> Iterator[Contradiction]:
    partition = config.data.partition
    if partition.kind == "field" and not partition.field:
        yield Contradiction(
            "data.partition.field",
            'partition kind "field" needs the name of a field',
            ("data.partition.kind",),
        )


def _evaluation(config: RunConfig) -> Iterator[Contradiction]:
    if config.evaluation.exact_match and not TASKS.get(config.task.kind).generates:
        yield Contradiction(
            "evaluation.exact_match",
            f"a {config.task.kind} task generates no answers",
            ("task.kind",),
        )
    if config.evaluation.every and not _own(config, config.data.test):
        yield Contradiction(
            "data.test",
            "evaluation needs test records, or evaluation.every = 0",
            ("evaluation.every", "data.train"),
        )


def _secagg(config: RunConfig, frame: FrameFacts) -> Iterator[Contradiction]:
    """What would need, or would show, the update of a single client."""
    if not config.secagg.required:
        return
    mode = ("secagg.mode",)
    yield from _members(config)
    if config.codec.name != "dense":
        yield Contradiction(
            "codec.name",
            f'"{config.codec.name}" has factors that each client chooses, which do not add up under masks; '
            'set "dense": secagg.grid takes its place',
            mode,
        )
    if not METHODS.get(config.method).exact:
        yield Contradiction(
            "method", f"the error of averaging {config.method} is measured on single updates", mode
        )
    if AGGREGATION_RULES.get(config.aggregation.rule).needs_single_updates:
        yield Contradiction(
            "aggregation.rule", f"{config.aggregation.rule} looks at single updates, which masks hide", mode
        )
    if config.evaluation.federated:
        yield Contradiction("evaluation.federated", "the server would see single clients' metrics", mode)
    if frame.from_sketches:
        yield Contradiction(
            "adapter.initialiser", f"the server would see the single sketches of {frame.name}", mode
        )


def _members(config: RunConfig) -> Iterator[Contradiction]:
    asked, threshold = config.rounds.cohort or config.data.partition.clients, config.secagg.threshold
    path = "rounds.cohort" if config.rounds.cohort else "data.partition.clients"
    if not MIN_MEMBERS <= asked <= MAX_MEMBERS:
        yield Contradiction(
            path,
            f"updates of {MIN_MEMBERS} to {MAX_MEMBERS} clients are masked together, not {asked}",
            ("secagg.mode",),
        )
    elif threshold and not 2 * asked < 3 * threshold <= 3 * asked:
        yield Contradiction(
            "secagg.threshold",
            f"{threshold} is not above two thirds of the {asked} clients asked, and at most all of them",
            (path,),
        )


def _own(config: RunConfig, source: str) -> bool:
    """Whether records are named; the demo's belong to the demo's training records, and to no others."""
    return bool(source) and (source != DEMO or config.data.train == DEMO)
