"""A square frame without values, for planning where tensors have no memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SquareSizes:
    """A frame of these sizes: ``shape`` is (out, in) of the weight."""

    shape: tuple[int, int]
    rank: int
    scale: float = 1.0

    @property
    def a(self) -> Tensor:
        """A, ``(r, in)``."""
        return torch.empty(self.rank, self.shape[1])

    @property
    def b(self) -> Tensor:
        """B, ``(out, r)``."""
        return torch.empty(self.shape[0], self.rank)

    @property
    def r0(self) -> Tensor:
        """What R starts from, ``(r, r)``."""
        return torch.empty(self.rank, self.rank)
