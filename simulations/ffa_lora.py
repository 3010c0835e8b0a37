"""A minimal FFA-LoRA (Sun et al., ICLR 2024) to compare with: y = W x + B A x, only B trained.

With A the same everywhere the average of the clients' B is exact, as it is for the square adapters, but B
has out x r entries where R has r x r.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedft.adapters import resolve_targets
from fedft.config import RunConfig
from fedft.training.model_runtime import ModelRuntime
from fedft.training.private import train_private
from fedft.training.private_schedule import private_rounds


class FfaLinear(nn.Module):
    """The layer; ``R`` is what the per-sample gradients call the one trained matrix, here B (out, r)."""

    def __init__(self, base: nn.Linear, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.base = base
        self.register_buffer("A", torch.randn(rank, base.in_features, generator=generator) / rank**0.5)
        self.R = nn.Parameter(torch.zeros(base.out_features, rank))
        self.per_sample_sink: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + _Product.apply(x, self.R, self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, layer: FfaLinear) -> Tensor:
        u = x @ layer.A.T
        ctx.layer = layer
        ctx.save_for_backward(u, matrix)
        return u @ matrix.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (u, matrix), layer, gradient = ctx.saved_tensors, ctx.layer, None
        if layer.per_sample_sink is None:
            gradient = (grad.mT @ u).flatten(0, -3).sum(0)
        else:
            layer.per_sample_sink.record(layer, u, grad)
        return grad @ matrix @ layer.A, gradient, None


def train_ffa(config: RunConfig, rank: int) -> float:
    """Test accuracy after all rounds of private FFA-LoRA: the same steps, batches and noise rules."""
    runtime = ModelRuntime(config)
    trained = _attach(runtime, rank)
    clients = range(config.data.partition.clients)
    plans = [private_rounds(config, runtime.records.count(client)) for client in clients]
    heads = [p for name, p in trained.items() if name in runtime.base.head]
    matrices = [p for name, p in trained.items() if name not in runtime.base.head]
    for number in range(config.rounds.total):
        start = [p.detach().clone() for p in trained.values()]
        total = [torch.zeros_like(p) for p in start]
        for client in clients:
            _load(trained, start)
            train_private(
                runtime.base.model,
                runtime.task,
                runtime.client_data(client).train,
                config.training,
                plans[client],
                max_grad_norm=config.privacy.max_grad_norm,
                probe=runtime.task.synthetic_samples(runtime.base.model),
                adapters=matrices,
                head=heads,
                first_step=number * plans[client].steps,
                total_steps=config.rounds.total * plans[client].steps,
            )
            total = [t + p.detach() for t, p in zip(total, trained.values(), strict=True)]
        _load(trained, [t / len(clients) for t in total])
    return runtime.evaluate(runtime.test[0]).values()["accuracy"]


def _attach(runtime: ModelRuntime, rank: int) -> dict[str, nn.Parameter]:
    model = runtime.base.model
    for index, name in enumerate(resolve_targets(model, "auto")):
        parent, _, child = name.rpartition(".")
        layer = FfaLinear(model.get_submodule(name), rank, runtime.config.seed * 1000 + index)
        setattr(model.get_submodule(parent), child, layer)
    for name in runtime.base.head:
        model.get_parameter(name).requires_grad_(True)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _load(parameters: dict[str, nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters.values(), values, strict=True):
            parameter.copy_(value)
