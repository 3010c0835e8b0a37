"""What a run's configuration means for one client: its batches, its noise, and what a round costs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.accounting.events import Budget, PrivacyEvent, check_delta
from fedft.privacy.accounting.planning import calibrate
from fedft.privacy.mechanisms.sampling import (
    PoissonSampler,
    Sampler,
    ShuffledSampler,
    TruncatedPoissonSampler,
)
from fedft.registries import METHODS
from fedft.training.schedule import local_steps


@dataclass(frozen=True)
class PrivateRounds:
    """One client's part in every round of a private run; the same in each.

    Attributes:
        sampler: draws a step's batch from the client's records.
        steps: private steps of one round.
        rounds: of the whole run, spare ones included.
        noise_multiplier: σ of every step.

    """

    sampler: Sampler
    steps: int
    rounds: int
    noise_multiplier: float

    def event(self) -> PrivacyEvent:
        """Return what one round costs."""
        return self.sampler.event(self.noise_multiplier, self.steps)

    def run_event(self) -> PrivacyEvent:
        """Return what all rounds cost."""
        return _times(self.event(), self.rounds)


def private_rounds(config: RunConfig, examples: int) -> PrivateRounds:
    """Return what a client with so many records does in each round.

    The noise multiplier is the configured one, or the least that keeps all rounds within the run's ε. It is a
    function of the configuration and of the number of records alone, so it is the same in every round.

    Raises:
        FedftError: FEDFT-8001 (δ ≥ 1/n), FEDFT-8101 (a batch larger than the data), FEDFT-8004 (no noise is
            enough), FEDFT-8005 (the configured noise is not enough).

    """
    privacy = config.privacy
    target = Budget(privacy.epsilon, privacy.delta)
    check_delta(target.delta, examples)
    steps, rounds = local_steps(config.training, examples), accounted_rounds(config)
    sampler = configured_sampler(config, examples)
    sketch = private_sketch_of(config, examples)
    before = () if sketch is None else (sketch.event(),)
    sigma = privacy.noise_multiplier
    if not sigma:
        sigma = _calibrated(target, _times(sampler.event(1.0, steps), rounds), before)
    result = PrivateRounds(sampler, steps, rounds, sigma)
    if privacy.noise_multiplier:
        _require_within(target, (*before, result.run_event()))
    return result


def private_sketch_of(config: RunConfig, examples: int) -> PrivateRounds | None:
    """Return the one release that a frame made by the clients costs before the first round; None for others.

    Its noise keeps it alone within its share of the run's ε.

    Raises:
        FedftError: FEDFT-8001 (δ ≥ 1/n), FEDFT-8101 (more samples than records), FEDFT-8004.

    """
    if METHODS.get(config.method).frame_facts(config).made_by != "clients":
        return None
    privacy = config.privacy
    check_delta(privacy.delta, examples)
    sampler = PoissonSampler(examples, config.adapter.samples)
    share = Budget(privacy.sketch_share * privacy.epsilon, privacy.delta)
    return PrivateRounds(sampler, 1, 1, _calibrated(share, sampler.event(1.0, 1), ()))


def client_event(config: RunConfig) -> PrivacyEvent:
    """Return what one round costs whose unit is a client, with the configured or the calibrated noise.

    Raises:
        FedftError: FEDFT-8001 (δ ≥ 1/clients), FEDFT-8004 (no noise is enough), FEDFT-8005 (the configured
            noise is not enough).

    """
    privacy = config.privacy
    target = Budget(privacy.epsilon, privacy.delta)
    check_delta(target.delta, config.data.partition.clients)
    event = PrivacyEvent(privacy.noise_multiplier or 1.0, privacy.client_rate)
    run = _times(event, accounted_rounds(config))
    if privacy.noise_multiplier:
        _require_within(target, (run,))
        return event
    return replace(event, noise_multiplier=_calibrated(target, run, ()))


def expected_clients(config: RunConfig) -> float:
    """Return how many clients a round has in the mean where each is drawn by itself."""
    return config.data.partition.clients * config.privacy.client_rate


def planned_event(config: RunConfig, examples: int, batch: int) -> PrivacyEvent:
    """Return what all rounds would release at another `training.batch_size`, with a noise multiplier of 1."""
    training = config.training.model_copy(update={"batch_size": batch})
    changed = config.model_copy(update={"training": training})
    steps = local_steps(training, examples)
    return _times(configured_sampler(changed, examples).event(1.0, steps), accounted_rounds(config))


def configured_sampler(config: RunConfig, examples: int) -> Sampler:
    """Return the sampler that a configuration names, for a client with so many records; FEDFT-8101."""
    privacy, batch = config.privacy, config.training.batch_size
    match privacy.sampling:
        case "poisson":
            return PoissonSampler(examples, batch)
        case "truncated-poisson":
            return TruncatedPoissonSampler(examples, batch, privacy.max_batch or math.ceil(1.5 * batch))
        case "shuffled":
            return ShuffledSampler(examples, batch)


def accounted_rounds(config: RunConfig) -> int:
    """Return how many rounds the noise of a run is calibrated for, spare ones included."""
    return config.rounds.total + config.privacy.spare_rounds


def _times(event: PrivacyEvent, rounds: int) -> PrivacyEvent:
    return replace(event, steps=rounds * event.steps)


@functools.lru_cache(maxsize=256)
def _calibrated(target: Budget, event: PrivacyEvent, spent: tuple[PrivacyEvent, ...]) -> float:
    return calibrate(target, event, spent=spent)


@functools.lru_cache(maxsize=256)
def _require_within(target: Budget, events: tuple[PrivacyEvent, ...]) -> None:
    epsilon = pld_epsilon(events, target.delta)
    if epsilon > target.epsilon:
        raise FedftError(
            Code.NOISE_TOO_SMALL,
            f"privacy.noise_multiplier {events[-1].noise_multiplier:g} makes the run cost epsilon "
            f"{epsilon:.4g}, privacy.epsilon is {target.epsilon:g}",
            hint="more noise, or leave it out to have it calibrated",
        )
