"""What the audit puts to the test, and the engine that this package trains with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fedft.privacy.mechanisms.dp_sgd import DpSgd
from fedft.privacy.mechanisms.noise import NoiseSource
from fedft.privacy.mechanisms.sampling import Indices, PoissonSampler
from fedft.privacy.mechanisms.start_checks import Batch


@dataclass(frozen=True)
class Setting:
    """What an engine claims.

    Attributes:
        layout: number of parameters of each layer; their sum is d.
        max_norm: L2 bound C of a sample's gradient.
        noise_multiplier: σ.
        denominator: what sums are divided by.
        sample_rate: probability that a sample is in a batch.

    """

    layout: tuple[int, ...] = (16, 24, 9)
    max_norm: float = 0.7
    noise_multiplier: float = 1.0
    denominator: float = 5.0
    sample_rate: float = 0.3

    @property
    def dimension(self) -> int:
        """Length of a gradient."""
        return sum(self.layout)

    def in_clips(self, released: Tensor) -> Tensor:
        """Turn a released mean into a sum in units of the bound: the noise then has deviation σ."""
        return released.double() * self.denominator / self.max_norm


class Engine(Protocol):
    """One client's private step."""

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        """Run one step on per-sample gradients, (samples, d) in each virtual batch; return (d,) noised."""
        ...

    def draw(self, examples: int) -> Indices:
        """Return the indices of one step's batch."""
        ...


MakeEngine = Callable[[Setting, "NoiseSource | None"], Engine]
"""Makes a new engine of a setting; a noise source stands in for the engine's own, None leaves it."""


class DpSgdEngine:
    """The real step: `DpSgd` on a model whose per-sample gradients are the ones it is given.

    Sample i has the loss Σ_l ⟨w_l, x_il⟩ over layers l, so its gradient is x_i; the optimiser is SGD at
    rate 1 from w = 0, so the parameters after a step are minus what was released.
    """

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        self._model = nn.ModuleList(nn.Linear(size, 1, bias=False) for size in setting.layout)
        self._rate, self._layout = setting.sample_rate, setting.layout
        self._step = DpSgd(
            self._model,
            torch.optim.SGD(self._model.parameters(), lr=1.0),
            _linear_losses,
            max_grad_norm=setting.max_norm,
            noise_multiplier=setting.noise_multiplier,
            expected_batch=setting.denominator,
            noise=noise,
        )

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        """See `Engine`."""
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.zero_()
        with self._step as step:
            for rows in virtual_batches:
                parts = torch.split(rows, list(self._layout), dim=1)
                step.accumulate({str(layer): part for layer, part in enumerate(parts)})
            step.step()
        return -torch.cat([parameter.detach().flatten() for parameter in self._model.parameters()])

    def draw(self, examples: int) -> Indices:
        """See `Engine`."""
        return next(iter(PoissonSampler(examples, self._rate * examples).batches(1)))


def _linear_losses(model: nn.Module, batch: Batch) -> Tensor:
    outputs = [layer(batch[str(index)]) for index, layer in enumerate(model.children())]
    return torch.cat(outputs, dim=1).sum(1)
