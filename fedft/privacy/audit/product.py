"""The private releases of the product as engines of the audit: a round, a sketch, updates of clients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedft.adapters.frame import Frame
from fedft.adapters.linear import AdaptedLinear
from fedft.privacy.audit.engine import Setting
from fedft.privacy.mechanisms.blocks import Block, BlockMechanism
from fedft.privacy.mechanisms.client_level import TOLERANCE, ClientLevelMechanism, clip_delta
from fedft.privacy.mechanisms.dp_sgd import DpSgd
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.privacy.mechanisms.noise import NoiseSource, SecureNoise
from fedft.privacy.mechanisms.sampling import Indices, PoissonSampler
from fedft.privacy.mechanisms.sketch import Probe, SketchPlan, private_sketch

_SHARES = (0.3, 0.7)


class RoundEngine:
    """A client's step on square adapters: `DpSgd` on layers whose gradients are the rows that it is given.

    A layer of side r reads the identity, one row for each token, so that a sample's loss ⟨G, R⟩ has the
    gradient G. Rows are cut into layers of the setting's sizes, each filled up to a square with zeros.
    """

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        self._rate, self._layout = setting.sample_rate, setting.layout
        self._sides = [math.isqrt(size - 1) + 1 for size in setting.layout]
        self._model = nn.ModuleList(_square(side) for side in self._sides)
        self._step = DpSgd(
            self._model,
            torch.optim.SGD([layer.get_parameter("R") for layer in self._model], lr=1.0),
            _square_losses,
            max_grad_norm=setting.max_norm,
            noise_multiplier=setting.noise_multiplier,
            expected_batch=setting.denominator,
            noise=noise,
        )

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        """See `Engine`."""
        matrices = [layer.get_parameter("R") for layer in self._model]
        with torch.no_grad():
            for matrix in matrices:
                matrix.zero_()
        with self._step as step:
            for rows in self._virtual(virtual_batches):
                step.accumulate(self._squares(rows))
            step.step()
        parts = [m.detach().flatten()[:size] for m, size in zip(matrices, self._layout, strict=True)]
        return -torch.cat(parts)

    def draw(self, examples: int) -> Indices:
        """See `Engine`."""
        return _poisson(self._rate, examples)

    def _virtual(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        yield from batches

    def _squares(self, rows: Tensor) -> dict[str, Tensor]:
        found = {}
        parts = torch.split(rows, list(self._layout), dim=1)
        for layer, (side, part) in enumerate(zip(self._sides, parts, strict=True)):
            filled = torch.zeros(len(rows), side * side)
            filled[:, : part.shape[1]] = part
            found[str(layer)] = filled.view(-1, side, side)
        return found


class MicroBatchEngine(RoundEngine):
    """The same, with every sample in a pass of its own."""

    def _virtual(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        for rows in batches:
            yield from rows.split(1)


class BlockEngine:
    """A step with bounds apart: two halves of a contribution, each clipped and noised for itself.

    Block b releases with noise σ/√a_b; brought to √a_b of its size, every entry has the noise σ, and a whole
    contribution is at most √Σ a_b = 1 bounds long, as the setting claims.
    """

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        first, self._rate = setting.dimension // 2, setting.sample_rate
        parts = torch.arange(setting.dimension).split([first, setting.dimension - first])
        blocks = [Block((), setting.max_norm, share) for share in _SHARES]
        self._scale = torch.cat([torch.full((len(p),), s**0.5) for p, s in zip(parts, _SHARES, strict=True)])
        self._mechanism = BlockMechanism(
            list(zip(parts, blocks, strict=True)),
            noise_multiplier=setting.noise_multiplier,
            denominator=setting.denominator,
            noise=noise,
        )

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        """See `Engine`."""
        for rows in virtual_batches:
            self._mechanism.add(rows)
        return self._scale * self._mechanism.release()

    def draw(self, examples: int) -> Indices:
        """See `Engine`."""
        return _poisson(self._rate, examples)


class SketchEngine:
    """A sketch of gradients: layers of one input, whose sketch by Ω = 1 and Ψ = 0 is the gradient itself."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        self._setting, self._noise = setting, noise or SecureNoise()
        sizes = list(enumerate(setting.layout))
        self._model = nn.ModuleDict({str(i): nn.Linear(1, size, bias=False) for i, size in sizes})
        self._model.requires_grad_(False)
        self._plan = SketchPlan({str(i): Probe(torch.ones(1, 1), torch.zeros(1, size)) for i, size in sizes})
        generator = torch.Generator().manual_seed(0)
        self._probe = self._cut(torch.randn(3, setting.dimension, generator=generator))

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        """See `Engine`."""
        mechanism = GaussianMechanism(
            self._plan.dimension,
            max_norm=self._setting.max_norm,
            noise_multiplier=self._setting.noise_multiplier,
            denominator=self._setting.denominator,
            noise=self._noise,
        )
        batches = (self._cut(rows) for rows in virtual_batches)
        flat = private_sketch(self._model, _line_losses, batches, self._plan, mechanism, probe=self._probe)
        return torch.cat([self._plan.blocks(name, flat).columns.flatten() for name in self._plan.probes])

    def draw(self, examples: int) -> Indices:
        """See `Engine`."""
        return _poisson(self._setting.sample_rate, examples)

    def _cut(self, rows: Tensor) -> dict[str, Tensor]:
        parts = torch.split(rows, list(self._setting.layout), dim=1)
        return {str(layer): part for layer, part in enumerate(parts)}


class ClientEngine:
    """A round whose units are clients: each update clipped by its client, summed and noised at the server."""

    def __init__(self, setting: Setting, noise: NoiseSource | None = None) -> None:
        self._rate = setting.sample_rate
        self._mechanism = ClientLevelMechanism(
            setting.dimension,
            max_norm=setting.max_norm / (1 + TOLERANCE),
            noise_multiplier=setting.noise_multiplier,
            cohort=setting.denominator,
            noise=noise,
        )

    def release(self, virtual_batches: Sequence[Tensor]) -> Tensor:
        """See `Engine`."""
        for rows in virtual_batches:
            clipped = [clip_delta(row, self._mechanism.max_norm)[0] for row in rows]
            if clipped:
                self._mechanism.add(torch.stack(clipped))
        return self._mechanism.release()

    def draw(self, examples: int) -> Indices:
        """See `Engine`; the server's own draw is tested with the server."""
        return _poisson(self._rate, examples)


def _square(side: int) -> AdaptedLinear:
    base = nn.Linear(side, side, bias=False).requires_grad_(False)
    base.weight.zero_()
    return AdaptedLinear(base, Frame(torch.eye(side), torch.eye(side), torch.zeros(side, side), 1.0))


def _square_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    losses = torch.zeros(len(batch["0"]))
    for index, layer in enumerate(model.children()):
        wanted = batch[str(index)]
        read = layer(torch.eye(wanted.shape[1]).expand(len(wanted), -1, -1))
        losses = losses + (read * wanted.mT).sum((1, 2))
    return losses


def _line_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    losses = torch.zeros(len(batch["0"]))
    for name, layer in model.named_children():
        losses = losses + (layer(torch.ones(len(losses), 1, 1))[:, 0] * batch[name]).sum(1)
    return losses


def _poisson(rate: float, examples: int) -> Indices:
    drawn: Indices = next(iter(PoissonSampler(examples, rate * examples).batches(1)))
    return drawn
