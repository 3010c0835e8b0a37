"""The mean of the later iterates, in place of the last one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class IterateMean:
    """Averages parameters over the later iterates of a run of steps (Polyak and Juditsky, 1992).

    Args:
        parameters: that are stepped.
        first: iterates before it, counted from 0, are left out.

    """

    def __init__(self, parameters: Sequence[nn.Parameter], first: int) -> None:
        self._parameters, self._first = parameters, first
        self._sums = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        self._seen = 0

    @torch.no_grad()
    def add(self) -> None:
        """Take in the parameters as they are after a step."""
        if self._seen >= self._first:
            for total, parameter in zip(self._sums, self._parameters, strict=True):
                total += parameter
        self._seen += 1

    @torch.no_grad()
    def write(self) -> None:
        """Set the parameters to the mean; at least one iterate must have been taken in."""
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            parameter.copy_(total / (self._seen - self._first))
