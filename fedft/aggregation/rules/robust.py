"""What robust rules share: they see every update, count clients alike, and end in an exact mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedft.aggregation.accumulator import FRACTION_BITS
from fedft.aggregation.exact_sum import ExactSum
from fedft.aggregation.rules.interface import AggregationRule, Verdict
from fedft.codecs import DecodedUpdate
from fedft.config.rules import Contradiction
from fedft.errors import Code, FedftError
from fedft.registries import METHODS, PRIVACY_MODELS
from fedft.tensors import Arrays

if TYPE_CHECKING:
    from fedft.aggregation.accumulator import ExactAccumulator
    from fedft.config import RunConfig

Vector = NDArray[np.float32]
_KEY = "aggregation.rule"


@dataclass(frozen=True)
class Combined:
    """The result of a rule, (d,), and the share of each update that is in it, (n,)."""

    result: Vector
    kept: NDArray[np.float64]


class RobustRule(AggregationRule):
    """A rule whose result a bounded number of hostile clients cannot move at will.

    All clients count alike, since a client states its own number of examples. Updates are kept until the
    round closes: 4 bytes for each parameter and client.
    """

    needs_single_updates = True

    @abstractmethod
    def combine(self, updates: NDArray[np.float32]) -> Combined:
        """Make one update of finite ones, (n, d) with n at least ``fewest_updates``."""

    def collector(self, accumulator: ExactAccumulator) -> SingleUpdates:
        """Return what keeps the updates apart; nothing is added to the accumulator."""
        return SingleUpdates(self, accumulator)

    def contradictions(self, config: RunConfig) -> Iterator[Contradiction]:
        """Yield what takes the ground from under the rule, or needs the plain mean."""
        if config.rounds.weighting != "uniform":
            yield Contradiction(
                "rounds.weighting",
                f'{self.name} counts all clients alike, since each states its own examples; use "uniform"',
                (_KEY,),
            )
        asked = config.rounds.cohort or config.data.partition.clients
        if asked < self.fewest_updates:
            yield Contradiction(
                _KEY,
                f"{self.name} needs {self.fewest_updates} updates in a round, {asked} clients are asked",
                ("aggregation.byzantine", "rounds.cohort", "data.partition.clients"),
            )
        yield from self._needs_the_mean(config)

    def _needs_the_mean(self, config: RunConfig) -> Iterator[Contradiction]:
        method, privacy = METHODS.get(config.method), PRIVACY_MODELS.get(config.privacy.mechanism)
        if privacy.private and not privacy.charged_at_client:
            yield Contradiction(
                _KEY,
                "the server's noise is made for the mean of clipped updates, which bounds each of them; "
                'use "mean"',
                ("privacy.mechanism",),
            )
        if not method.exact:
            yield Contradiction(
                _KEY,
                f"{method.name} measures its averaging against the mean of the clients' changes; "
                'use "mean", or method "fedsb" or "ffa-lora"',
                ("method",),
            )
        if method.frame_facts(config).from_sketches:
            yield Contradiction(
                _KEY,
                "one hostile client would still rule the frame, which is made of the mean of the clients' "
                "sketches; use another adapter.initialiser",
                ("adapter.initialiser",),
            )


class SingleUpdates:
    """Keeps a round's updates apart and combines them in the order of the clients' keys."""

    def __init__(self, rule: RobustRule, limits: ExactAccumulator) -> None:
        self._rule, self._limits = rule, limits
        self._updates: dict[str, Vector] = {}
        self.verdicts: dict[str, Verdict] = {}

    def add(self, client: str, update: DecodedUpdate, weight: int) -> None:
        """Keep it decoded; FEDFT-5010 when a value is above the cap, which a rotation can bring about."""
        flat = update.flat(self._limits.manifest)
        self._limits.check(float(np.abs(flat).max()), weight)
        self._updates[client] = flat

    def result(self) -> Arrays:
        """Combine; FEDFT-5014 without any update, FEDFT-5018 with too few for what the rule assumes."""
        count, needed = len(self._updates), self._rule.fewest_updates
        if not count:
            raise FedftError(Code.NO_UPDATES, "no updates to combine")
        if count < needed:
            raise FedftError(
                Code.RULE_NEEDS_MORE_UPDATES, f"{self._rule.name} needs {needed} updates, there are {count}"
            )
        clients = sorted(self._updates)
        rows = np.stack([self._updates[client] for client in clients])
        combined = self._rule.combine(rows)
        self.verdicts = {
            client: Verdict(float(kept), norm(row.astype(np.float64) - combined.result))
            for client, row, kept in zip(clients, rows, combined.kept, strict=True)
        }
        return self._limits.manifest.unflatten(combined.result)


def exact_mean(rows: Iterable[Vector], size: int) -> Vector:
    """Return the mean of vectors (size,), summed and rounded as ``ExactAccumulator.mean`` does."""
    total, count = ExactSum(size, FRACTION_BITS), 0
    for row in rows:
        total.contribution(1, float(np.abs(row).max())).add_dense(0, row)
        count += 1
    return (np.ldexp(total.to_float64(), -FRACTION_BITS) / count).astype(np.float32)


def norm(vector: NDArray[np.floating]) -> float:
    """Return the L2 norm of a vector, in float64, by additions whose order its length alone decides."""
    return float(np.sqrt(np.sum(np.square(vector, dtype=np.float64))))
