"""What must hold between keys of a configuration; what one key may hold stands in the schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedft.registries import METHODS, TASKS

if TYPE_CHECKING:
    from fedft.config.schema import RunConfig
    from fedft.methods.interface import FrameFacts


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
    yield from _rounds(config)
    yield from _data(config, frame)
    yield from _evaluation(config)
    if config.privacy.mechanism != "none":
        yield from _private(config, frame)
    if config.privacy.mechanism == "client":
        yield from _client_level(config)
    if config.privacy.mechanism == "example":
        yield from _example_level(config)
    elif frame.made_by == "clients":
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


def _rounds(config: RunConfig) -> Iterator[Contradiction]:
    rounds, clients = config.rounds, config.data.partition.clients
    if rounds.cohort and rounds.min_replies > rounds.cohort:
        yield Contradiction(
            "rounds.min_replies",
            f"{rounds.min_replies} is over rounds.cohort {rounds.cohort}",
            ("rounds.cohort",),
        )
    for key in ("cohort", "min_clients", "min_replies"):
        if getattr(rounds, key) > clients:
            yield Contradiction(
                f"rounds.{key}",
                f"{getattr(rounds, key)} is over data.partition.clients {clients}",
                ("data.partition.clients",),
            )


def _data(config: RunConfig, frame: FrameFacts) -> Iterator[Contradiction]:
    partition = config.data.partition
    if partition.kind == "field" and not partition.field:
        yield Contradiction(
            "data.partition.field",
            'partition kind "field" needs the name of a field',
            ("data.partition.kind",),
        )
    if frame.needs == "gradients" and not config.data.public:
        yield Contradiction(
            "data.public",
            f"{frame.name} builds its frame from public records; name them",
            ("adapter.initialiser",),
        )


def _evaluation(config: RunConfig) -> Iterator[Contradiction]:
    if config.evaluation.exact_match and not TASKS.get(config.task.kind).generates:
        yield Contradiction(
            "evaluation.exact_match",
            f"a {config.task.kind} task generates no answers",
            ("task.kind",),
        )
    if config.evaluation.every and not config.data.test:
        yield Contradiction(
            "data.test",
            "evaluation needs test records, or evaluation.every = 0",
            ("evaluation.every",),
        )


def _client_level(config: RunConfig) -> Iterator[Contradiction]:
    """What would weigh clients by their data, or choose them otherwise than the accounting says."""
    privacy = config.privacy
    if config.rounds.cohort:
        yield Contradiction(
            "rounds.cohort",
            "the accounting needs clients that are drawn one by one; set privacy.client_rate",
            ("privacy.mechanism",),
        )
    if privacy.clip_quantile and privacy.count_noise and 2 * privacy.count_noise <= privacy.noise_multiplier:
        yield Contradiction(
            "privacy.count_noise",
            "must exceed half the noise multiplier, or nothing is left for the updates",
            ("privacy.noise_multiplier",),
        )


def _private(config: RunConfig, frame: FrameFacts) -> Iterator[Contradiction]:
    """What would leave private data unaccounted for."""
    mechanism = "privacy.mechanism"
    if config.rounds.weighting == "examples":
        yield Contradiction(
            "rounds.weighting",
            'private clients weigh the same, whatever their data; use "uniform"',
            (mechanism,),
        )
    if config.evaluation.federated:
        yield Contradiction(
            "evaluation.federated",
            "metrics of private data would leave without being accounted for",
            (mechanism,),
        )
    data = config.data
    if frame.needs == "gradients" and data.public == data.train != "demo":
        yield Contradiction(
            "data.public",
            "the frame would be built from private records; name public ones, or another adapter.initialiser",
            (mechanism, "adapter.initialiser", "data.train"),
        )


def _example_level(config: RunConfig) -> Iterator[Contradiction]:
    """What would tell of a private client's examples, or cannot be drawn."""
    mechanism = "privacy.mechanism"
    if config.task.too_long == "error":
        yield Contradiction(
            "task.too_long",
            'an error would tell that a private record is long; use "drop" or "truncate"',
            (mechanism,),
        )
    yield from _sampling(config)


def _sampling(config: RunConfig) -> Iterator[Contradiction]:
    privacy, batch = config.privacy, config.training.batch_size
    if privacy.max_batch and privacy.sampling != "truncated-poisson":
        yield Contradiction(
            "privacy.max_batch", f"{privacy.sampling} sampling has no cap", ("privacy.sampling",)
        )
    elif privacy.max_batch and privacy.max_batch < batch:
        yield Contradiction(
            "privacy.max_batch",
            f"{privacy.max_batch} is below training.batch_size {batch}",
            ("privacy.sampling", "training.batch_size"),
        )
