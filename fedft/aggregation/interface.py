"""What a round asks of whatever sums its updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedft.aggregation.rules.interface import Verdict
from fedft.tensors import Arrays
from fedft.wire.messages import Update


@dataclass(frozen=True)
class UpdateAccepted:
    """The update is in the round with this weight (0: hidden); ``norm`` is its L2 norm (0: hidden)."""

    weight: int
    norm: float


@dataclass(frozen=True)
class UpdateRejected:
    """The update changed nothing."""

    code: str
    message: str


class Aggregator(Protocol):
    """Takes the updates of one round in any order, each at most once."""

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """What the round's rule made of each client's update; empty where it judges nobody."""

    def offer(self, client_key: str, update: Update) -> UpdateAccepted | UpdateRejected:
        """Count an update of an authenticated client, or refuse it without any effect."""

    def result(self) -> Arrays:
        """Return what the round's rule makes of the accepted updates; FEDFT-5014 when there is none."""

    def total(self) -> NDArray[np.float64]:
        """Return the weighted sum of the accepted updates, (d,); zeros when there is none."""
