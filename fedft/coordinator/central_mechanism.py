"""Who is asked in a round, and what of the answers becomes the next state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from fedft.aggregation import RoundAggregator
from fedft.codecs import Manifest
from fedft.config import RunConfig
from fedft.coordinator.central_dp import CentralPrivacy
from fedft.coordinator.sampling import select_cohort
from fedft.statements import PrivacyStatement
from fedft.store import RunStore, UpdateRecord
from fedft.tensors import Arrays


class CentralMechanism(Protocol):
    """What is drawn and released in the rounds of a run."""

    @property
    def max_norm(self) -> float:
        """What clients must clip their updates to in this round; 0: nothing."""

    @property
    def limit(self) -> float:
        """The largest norm of a decoded update that counts; 0: that of the configuration."""

    def draw(self, number: int, clients: Iterable[str]) -> list[str]:
        """Return the clients of a round, sorted."""

    def release(
        self, number: int, aggregator: RoundAggregator, updates: Sequence[UpdateRecord]
    ) -> tuple[Arrays, PrivacyStatement | None]:
        """Return the mean that moves the state, and what the server states of its own noise."""


class ExactMean:
    """The mean of the updates as they are, of a cohort that the run's seed decides."""

    max_norm = 0.0
    limit = 0.0

    def __init__(self, config: RunConfig) -> None:
        self._config = config

    def draw(self, number: int, clients: Iterable[str]) -> list[str]:
        """Return the clients of a round, sorted; the same for every draw of it."""
        return select_cohort(clients, self._config.rounds.cohort, seed=self._config.seed, round_number=number)

    def release(
        self, number: int, aggregator: RoundAggregator, updates: Sequence[UpdateRecord]
    ) -> tuple[Arrays, None]:
        """Return the mean; there is no noise to state anything of."""
        return aggregator.result(), None


def central_mechanism(
    config: RunConfig, run_id: str, store: RunStore, manifest: Manifest
) -> CentralMechanism:
    """Return how a run's rounds are released, as its last committed round left it; raises as both do."""
    if config.privacy.mechanism == "client":
        return CentralPrivacy(config, run_id, store, manifest)
    return ExactMean(config)
