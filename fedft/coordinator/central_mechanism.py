"""Who is asked in a round, and what of the answers becomes the next state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from fedft.aggregation import Aggregator
from fedft.codecs import Manifest
from fedft.config import RunConfig
from fedft.coordinator.sampling import select_cohort
from fedft.coordinator.statements import example_level_statement
from fedft.privacy.models.interface import model_part, privacy_model
from fedft.statements import PrivacyStatement
from fedft.store import RunStore, UpdateRecord
from fedft.tensors import Arrays
from fedft.training.stages import round_bound
from fedft.wire import Update


class CentralMechanism(Protocol):
    """The server's part in the privacy of a run: who is drawn, what counts, what is released.

    Attributes:
        always_released: whether a round is released however few have answered: where the answers decided
            whether it counts, a client would take part in more of those that count than it is drawn for.

    """

    always_released: bool

    @property
    def max_norm(self) -> float:
        """What clients must clip their updates to in this round; 0: nothing."""

    @property
    def limit(self) -> float:
        """The largest norm of a decoded update that counts; 0: that of the configuration."""

    def draw(self, number: int, clients: Iterable[str]) -> list[str]:
        """Return the clients of a round, sorted."""

    def stated(self, update: Update) -> PrivacyStatement | None:
        """Return what an update must state; FEDFT-5017 where it does not state what was asked for."""

    def release(
        self, number: int, aggregator: Aggregator, updates: Sequence[UpdateRecord]
    ) -> tuple[Arrays, PrivacyStatement | None]:
        """Return the mean that moves the state, and what the server states of its own noise."""


class MakeMechanism(Protocol):
    """Makes the server's part for a run, as its last committed round left it."""

    def __call__(
        self, config: RunConfig, run_id: str, store: RunStore, manifest: Manifest
    ) -> CentralMechanism:
        """Return the mechanism; raises where the configuration cannot be carried out."""


def central_mechanism(
    config: RunConfig, run_id: str, store: RunStore, manifest: Manifest
) -> CentralMechanism:
    """Return how a run's rounds are released: the server's part of its privacy model (FEDFT-1013: none)."""
    make: MakeMechanism = model_part(privacy_model(config).server)
    return make(config, run_id, store, manifest)


class ExactMean:
    """The mean of the updates as they are, of a cohort that the run's seed decides."""

    always_released = False
    max_norm = 0.0
    limit = 0.0

    def __init__(self, config: RunConfig, run_id: str, store: RunStore, manifest: Manifest) -> None:
        self._config = config

    def draw(self, number: int, clients: Iterable[str]) -> list[str]:
        """Return the clients of a round, sorted; the same for every draw of it."""
        return select_cohort(clients, self._config.rounds.cohort, seed=self._config.seed, round_number=number)

    def stated(self, update: Update) -> PrivacyStatement | None:
        """Nothing is asked for; what is stated without being asked for is not recorded."""
        return None

    def release(
        self, number: int, aggregator: Aggregator, updates: Sequence[UpdateRecord]
    ) -> tuple[Arrays, None]:
        """Return the mean; there is no noise to state anything of."""
        return aggregator.result(), None


class StatedMean(ExactMean):
    """The mean of updates that their clients made private, each of which must say so."""

    def stated(self, update: Update) -> PrivacyStatement:
        """Return the client's statement; FEDFT-5017 unless it is the one that the run asks for."""
        bound = round_bound(self._config, update.round.round)
        return example_level_statement(update, delta=self._config.privacy.delta, max_norm=bound)
