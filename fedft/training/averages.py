"""What the states after a stage's rounds give: the last of them, or a mean. All of it is post-processing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from fedft.options import NoOptions, Options


@dataclass(frozen=True)
class AverageKind:
    """A mean over the states after consecutive rounds.

    Attributes:
        weights: of the states of so many rounds, the last one's last, and of these options; they are not
            negative and add up to 1. States of leading rounds with weight 0 need not be kept.
        options: the schema of further keys of the configuration's section.

    """

    weights: Callable[[int, Any], list[float]]
    options: type[Options] = NoOptions


def _last(rounds: int, _: NoOptions) -> list[float]:
    return [*[0.0] * (rounds - 1), 1.0]


class TailOptions(Options):
    """Of the mean over the last rounds."""

    tail: float = Field(0.5, gt=0, le=1, description="share of a stage's rounds, its last ones, in the mean")


def _tail(rounds: int, options: TailOptions) -> list[float]:
    count = math.ceil(options.tail * rounds)
    return [*[0.0] * (rounds - count), *[1 / count] * count]


class DecayOptions(Options):
    """Of the mean that forgets."""

    decay: float = Field(0.8, gt=0, lt=1, description="weight of a round over that of the round after it")


def _exponential(rounds: int, options: DecayOptions) -> list[float]:
    decay = options.decay
    unit = (1 - decay) / (1 - decay**rounds)
    return [unit * decay ** (rounds - number) for number in range(1, rounds + 1)]


LAST = AverageKind(_last)
TAIL = AverageKind(_tail, TailOptions)
"""Polyak and Juditsky, 1992; over the tail, Shamir and Zhang, ICML 2013."""
EXPONENTIAL = AverageKind(_exponential, DecayOptions)
"""An exponential moving average without its start, used under noise by De et al. 2022 (arXiv 2204.13650)."""
