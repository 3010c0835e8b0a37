"""What a private run should be set to, from theory alone: no record is looked at, only how many there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fedft.config import RunConfig
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.accounting.planning import calibrate
from fedft.registries import TASKS
from fedft.training.head_plan import final_noise, proposed_head_steps

PASSES, STEPS = 4, 40
"""Passes over a client's records and steps that adapters are trained for; the passes are the cost in time."""

_NOISE = 1 / 64
"""Noise of an entry of R, between orthonormal frames, at which the steps end; by experience."""
_STEPS_A_ROUND = 4
_HEAD_ROUNDS = 10


@dataclass(frozen=True)
class Proposal:
    """Settings, and what to expect of them.

    Attributes:
        settings: values by the dotted names of their keys.
        noise: what of the result is noise.
        expected: the same in words, with its unit.

    """

    settings: dict[str, Any]
    noise: float
    expected: str


def propose(config: RunConfig, *, examples: int, parameters: int) -> Proposal:
    """Return what a configuration's private run should be set to.

    A classifier of whole texts trains its head alone, in full batches; anything else its adapters.

    Args:
        config: names task, classes, clients and (ε, δ).
        examples: n of one client.
        parameters: d, trained.

    Raises:
        FedftError: FEDFT-8004 (no noise is enough).

    """
    task = config.task
    pooled = TASKS.get(task.kind).classifies_texts and task.pooling != "model" and task.normalise
    if pooled and config.adapter.train_head:
        return _head(config, examples)
    return _adapters(config, examples, parameters)


def _head(config: RunConfig, examples: int) -> Proposal:
    sigma = calibrate(_budget(config), PrivacyEvent(1.0))
    clients, classes = config.data.partition.clients, len(config.task.labels)
    steps = proposed_head_steps(
        sigma,
        examples=examples,
        clients=clients,
        classes=classes,
        rounds=_HEAD_ROUNDS,
        momentum=config.head.momentum,
    )
    rounds = _HEAD_ROUNDS + 1  # the first measures the mean of the features
    settings = {
        "rounds.total": rounds,
        "head.rounds": rounds,
        "head.steps": steps,
        "head.learning_rate": float(classes),
        "head.max_grad_norm": 1.0,
    }
    noise = final_noise(classes)
    return Proposal(settings, noise, f"noise of a logit at the end: {noise:.2g} nats")


def _adapters(config: RunConfig, examples: int, parameters: int) -> Proposal:
    """Take large batches and plain gradient descent, at the rate with which the noise ends where it may."""
    clients = config.data.partition.clients
    batch = min(max(1, round(PASSES * examples / STEPS)), examples)
    sigma = calibrate(_budget(config), PrivacyEvent(1.0, batch / examples, STEPS))
    alike = math.sqrt(clients * STEPS)
    settings = {
        "rounds.total": STEPS // _STEPS_A_ROUND,
        "training.steps": _STEPS_A_ROUND,
        "training.batch_size": batch,
        "training.optimizer": "sgd",
        "training.learning_rate": _rounded(_NOISE * batch * clients / (sigma * alike)),
        "privacy.max_grad_norm": 1.0,
        "privacy.clipping": "auto-s",
    }
    noise = sigma * math.sqrt(parameters) / (batch * alike)
    expected = f"length of the noise at the end: {noise:.2g} of the longest way that the steps can go"
    return Proposal(settings, noise, expected)


def _budget(config: RunConfig) -> Budget:
    return Budget(config.privacy.epsilon, config.privacy.delta)


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
