"""Adam whose second moment is freed of the known variance of the privacy noise (DP-AdamBC)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from fedft.options import Options
from fedft.training.optimizer import OptimizerKind, ParameterGroup, grouped

if TYPE_CHECKING:
    from fedft.config.schema import TrainingSection


class CorrectedAdam(torch.optim.Optimizer):
    """Steps by ``m̂ / √max(v̂ − σ², γ²)``, σ² the variance of the noise in each entry of a gradient.

    Source: Tang, Shpilevskiy and Lécuyer, AAAI 2024 (arXiv 2312.14334), algorithm 1, γ' there being γ² here.
    Under noise Adam's v̂ is the noise's variance nearly everywhere, and its steps are those of SGD with
    momentum; less that variance it is the gradient's own second moment again. Computed from noised gradients
    and public numbers alone.

    Args:
        groups: parameter groups with ``lr`` and ``noise``, the standard deviation σ.
        betas: of the two moments.
        floor: γ.
        weight_decay: decoupled.

    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        floor: float,
        weight_decay: float,
    ) -> None:
        super().__init__(groups, {"betas": betas, "floor": floor, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; there is no closure."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "first": torch.zeros_like(gradient), "second": torch.zeros_like(gradient)}
        state["step"] += 1
        first = state["first"].lerp_(gradient, 1 - beta1) / (1 - beta1 ** state["step"])
        second = state["second"].lerp_(gradient.square(), 1 - beta2) / (1 - beta2 ** state["step"])
        scale = (second - group["noise"] ** 2).clamp_(min=group["floor"] ** 2).sqrt_()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(first, scale, value=-group["lr"])


class CorrectedAdamOptions(Options):
    """Of Adam less the noise."""

    floor: float = Field(1e-4, gt=0, description="least root of the second moment that is divided by")


def _make(groups: list[ParameterGroup], section: TrainingSection) -> torch.optim.Optimizer:
    settings = [found | {"noise": group.noise} for found, group in zip(grouped(groups), groups, strict=True)]
    return CorrectedAdam(
        settings,
        betas=(section.beta1, section.beta2),
        floor=section.options.floor,
        weight_decay=section.weight_decay,
    )


ADAM_CORRECTED = OptimizerKind(_make, CorrectedAdamOptions)
