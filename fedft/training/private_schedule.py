"""What a run's configuration means for one client: its batches, its noise, and what a round costs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import attack_epsilon, pld_epsilon
from fedft.privacy.accounting.events import Budget, PrivacyEvent, check_delta
from fedft.privacy.accounting.planning import calibrate
from fedft.privacy.mechanisms.sampling import (
    PoissonSampler,
    Sampler,
    ShuffledSampler,
    TruncatedPoissonSampler,
)
from fedft.registries import METHODS
from fedft.training.head_plan import proposed_head_steps
from fedft.training.schedule import local_steps
from fedft.training.stages import Stage, all_rounds, head_rounds, measures_center, stage_of


@dataclass(frozen=True)
class PrivateRounds:
    """One client's part in every round of one stage of a private run; the same in each.

    Attributes:
        sampler: draws a step's batch from the client's records.
        steps: private steps of one round.
        rounds: of the stage, spare ones included.
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
        """Return what all rounds of the stage cost."""
        return _times(self.event(), self.rounds)


def private_round(config: RunConfig, examples: int, number: int) -> PrivateRounds:
    """Return what a client with so many records does in a round, counted from 1, by the round's stage.

    Raises:
        FedftError: as ``private_rounds``.

    """
    stage = stage_of(config, number)
    if stage is Stage.ALL:
        return private_rounds(config, examples)
    return private_head_of(config, examples)[stage]


def private_rounds(config: RunConfig, examples: int) -> PrivateRounds:
    """Return what a client with so many records does in each round that trains everything.

    The noise multiplier is the configured one, or the least that keeps the run, with what the frame and the
    head alone cost before, within its ε. It is a function of the configuration and of the number of records
    alone, so it is the same in every round.

    Raises:
        FedftError: FEDFT-8001 (δ ≥ 1/n), FEDFT-8101 (a batch larger than the data), FEDFT-8004 (no noise is
            enough), FEDFT-8005 (the configured noise is not enough).

    """
    privacy = config.privacy
    target = Budget(privacy.epsilon, privacy.delta)
    check_delta(target.delta, examples)
    steps, rounds = local_steps(config.training, examples), all_rounds(config) + privacy.spare_rounds
    sampler = configured_sampler(config, examples)
    before = spent_before(config, examples)
    sigma = privacy.noise_multiplier
    if not sigma:
        sigma = _calibrated(target, _times(sampler.event(1.0, steps), rounds), before)
    result = PrivateRounds(sampler, steps, rounds, sigma)
    if privacy.noise_multiplier:
        _require_within(target, (*before, result.run_event()))
    return result


def spent_before(config: RunConfig, examples: int) -> tuple[PrivacyEvent, ...]:
    """Return what a client's data have paid before the rounds that train everything: frame, center, head."""
    sketch = private_sketch_of(config, examples)
    frame = () if sketch is None else (sketch.event(),)
    return frame + tuple(rounds.run_event() for rounds in private_head_of(config, examples).values())


def private_head_of(config: RunConfig, examples: int) -> dict[Stage, PrivateRounds]:
    """Return what a client does in the rounds of the head alone, by stage; empty for a run without them.

    Together they cost their share of the run's ε, or all that a sketch leaves of it if no round follows.
    Every step takes in all records, so that all of it together is one Gaussian release, exactly:
    1/σ² = 1/σ_center² + T/σ_head².

    Raises:
        FedftError: FEDFT-8001 (δ ≥ 1/n), FEDFT-8004 (no noise is enough).

    """
    privacy, head = config.privacy, config.head
    if not head.rounds:
        return {}
    check_delta(privacy.delta, examples)
    sketch = private_sketch_of(config, examples)
    before = () if sketch is None or all_rounds(config) else (sketch.event(),)
    share = head.share if all_rounds(config) else 1.0
    sigma = _calibrated(Budget(share * privacy.epsilon, privacy.delta), PrivacyEvent(1.0), before)
    sampler, spare = PoissonSampler(examples, examples), privacy.spare_rounds
    center = head.center_share if measures_center(config) else 0.0
    rounds = head_rounds(config) + spare
    steps = head.steps or _proposed_steps(config, examples, sigma)
    noise = sigma * math.sqrt(rounds * steps / (1 - center))
    plan = {Stage.HEAD: PrivateRounds(sampler, steps, rounds, noise)}
    if center:
        plan[Stage.CENTER] = PrivateRounds(sampler, 1, 1 + spare, sigma * math.sqrt((1 + spare) / center))
    return plan


def _proposed_steps(config: RunConfig, examples: int, sigma: float) -> int:
    clients, classes = config.data.partition.clients, len(config.task.labels)
    return proposed_head_steps(
        sigma,
        examples=examples,
        clients=clients,
        classes=classes,
        rounds=head_rounds(config),
        momentum=config.head.momentum,
    )


def private_sketch_of(config: RunConfig, examples: int) -> PrivateRounds | None:
    """Return the one release that a frame made by the clients costs before the first round; None for others.

    Its noise keeps it alone within its share of the run's ε.

    Raises:
        FedftError: FEDFT-8001 (δ ≥ 1/n), FEDFT-8101 (more samples than records), FEDFT-8004.

    """
    if not METHODS.get(config.method).frame_facts(config).from_sketches:
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
    """Return what the rounds that train everything would release at another batch size, for σ = 1."""
    training = config.training.model_copy(update={"batch_size": batch})
    changed = config.model_copy(update={"training": training})
    steps = local_steps(training, examples)
    rounds = all_rounds(config) + config.privacy.spare_rounds
    return _times(configured_sampler(changed, examples).event(1.0, steps), rounds)


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
    epsilon = max(attack_epsilon(event, target.delta) for event in events)
    if (
        epsilon <= target.epsilon
    ):  # what an attack reaches takes milliseconds, exact accounting up to a minute
        epsilon = pld_epsilon(events, target.delta)
    if epsilon > target.epsilon:
        raise FedftError(
            Code.NOISE_TOO_SMALL,
            f"privacy.noise_multiplier {events[-1].noise_multiplier:g} makes the run cost at least epsilon "
            f"{epsilon:.4g}, privacy.epsilon is {target.epsilon:g}",
            hint="more noise, or leave it out to have it calibrated",
        )
