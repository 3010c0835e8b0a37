"""The stages of a run: the head first, on features of the frozen body, then everything that is trained."""

from __future__ import annotations

import math
from enum import Enum

from fedft.config import RunConfig
from fedft.config.rules import reads_public
from fedft.registries import AVERAGES


class Stage(Enum):
    """What the clients do in a round."""

    CENTER = "center"
    """Measure the mean of the features."""
    HEAD = "head"
    """Train the head alone, in full batches on features that are computed once."""
    ALL = "all"
    """Train the adapters, and the head with them."""


def measures_center(config: RunConfig) -> bool:
    """Whether a run's first round measures the features' mean; public records have given it otherwise."""
    return bool(config.head.rounds and config.head.center_share) and not reads_public(config)


def stage_of(config: RunConfig, number: int) -> Stage:
    """Return the stage of a round, counted from 1; a function of the configuration alone."""
    if number > config.head.rounds:
        return Stage.ALL
    return Stage.CENTER if number == 1 and measures_center(config) else Stage.HEAD


def round_bound(config: RunConfig, number: int) -> float:
    """Return the L2 bound of an example's part in a private round; the head alone has one of its own.

    Where adapters and head have bounds apart, it is that of both parts together.
    """
    if stage_of(config, number) is not Stage.ALL:
        return config.head.max_grad_norm
    return math.hypot(config.privacy.max_grad_norm, config.privacy.head_max_norm)


def head_rounds(config: RunConfig) -> int:
    """Return how many rounds train the head alone."""
    return config.head.rounds - measures_center(config)


def all_rounds(config: RunConfig) -> int:
    """Return how many rounds train everything."""
    return config.rounds.total - config.head.rounds


def stage_weights(config: RunConfig, number: int) -> dict[int, float]:
    """Return the rounds whose states a round's state is a mean of, with their weights.

    That is the round alone, with weight 1, unless it is the last of its stage and ``rounds.average`` names a
    mean over the stage.
    """
    stage = stage_of(config, number)
    last = number == config.rounds.total or stage_of(config, number + 1) is not stage
    if not last:
        return {number: 1.0}
    rounds = [n for n in range(1, number + 1) if stage_of(config, n) is stage]
    weights = AVERAGES.get(config.rounds.average).weights(len(rounds), config.rounds.options)
    return {n: weight for n, weight in zip(rounds, weights, strict=True) if weight}
