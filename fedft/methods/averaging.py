"""How far the mean of the clients' factors is from the mean of what they learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedft.adapters import Frames
from fedft.methods.interface import Method
from fedft.tensors import Arrays


class AveragingError:
    """Measures ``‖Σ pᵢ Δ(sᵢ) − Δ(Σ pᵢ sᵢ)‖ / ‖Σ pᵢ Δ(sᵢ)‖``, Δ(s) the change of the weights.

    State sᵢ is client i's after training. For LoRA ``Δ(sᵢ) = s Bᵢ Aᵢ``, and the numerator is what averaging B
    and A one by one gets wrong. The norm is Frobenius over all adapted layers together. The mean of the
    changes is summed in float64 at full rank: this takes 8 bytes for every weight of the adapted layers,
    whatever the number of clients, and one product of factors for every update. It says nothing of what a
    codec of the broadcast leaves out.

    Args:
        method: how an update moves a state.
        frames: of the run.
        state: that the round's clients started from.

    """

    def __init__(self, method: Method, frames: Frames, state: Arrays) -> None:
        self._method, self._frames, self._state = method, frames, state
        self._sums: dict[str, Tensor] = {}
        self._weight = 0

    def add(self, update: Arrays, weight: int) -> None:
        """Add a client's decoded update with its weight in the mean."""
        for name, change in self._changes(update).items():
            if name in self._sums:
                self._sums[name] += weight * change
            else:
                self._sums[name] = weight * change
        self._weight += weight

    def relative(self, mean: Arrays) -> float:
        """Return the error of a round whose updates have this mean; 0 where nothing has been learned."""
        missing = wanted = 0.0
        for name, change in self._changes(mean).items():
            exact = self._sums[name] / self._weight
            missing += float((exact - change).square().sum())
            wanted += float(exact.square().sum())
        return math.sqrt(missing / wanted) if wanted else 0.0

    def _changes(self, update: Arrays) -> dict[str, Tensor]:
        moved = self._method.next_state(self._state, update)
        state = {name: torch.from_numpy(value) for name, value in moved.items()}
        return {
            name: frame.change(self._frames.values_of(name, state)) for name, frame in self._frames.items()
        }
