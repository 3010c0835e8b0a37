"""The optimisers of local training, by their names in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import nn

from fedft.errors import Code, FedftError
from fedft.options import NoOptions, Options

if TYPE_CHECKING:
    from fedft.config.schema import TrainingSection


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are stepped alike.

    Attributes:
        parameters: on one device.
        rate: peak learning rate.
        noise: standard deviation of the noise in every entry of their gradient; 0 without privacy. It is
            known beforehand, so that whatever an optimiser makes of it is post-processing.

    """

    parameters: Sequence[nn.Parameter]
    rate: float
    noise: float = 0.0


Make = Callable[[list[ParameterGroup], "TrainingSection"], torch.optim.Optimizer]


@dataclass(frozen=True)
class OptimizerKind:
    """An optimiser that a configuration can name.

    Attributes:
        make: makes one of groups of parameters and the section that names it.
        options: the schema of further keys of that section.

    """

    make: Make
    options: type[Options] = NoOptions


def grouped(groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """Return groups in the form that torch's optimisers take."""
    return [{"params": list(group.parameters), "lr": group.rate} for group in groups]


def _adamw(groups: list[ParameterGroup], section: TrainingSection) -> torch.optim.Optimizer:
    betas = section.beta1, section.beta2
    return torch.optim.AdamW(grouped(groups), betas=betas, weight_decay=section.weight_decay)


ADAMW = OptimizerKind(_adamw)
"""Loshchilov and Hutter, ICLR 2019."""


def _in_8_bits(name: str) -> Make:
    """Return what makes bitsandbytes' AdamW of this name, with 8-bit state (arXiv 2110.02861).

    bitsandbytes keeps tensors of fewer than 4096 elements in 32 bits all the same. The paged one moves its
    state to the CPU's memory when the device's is short. Away from a CUDA device, where bitsandbytes has no
    kernels for it and would compute something else, it is refused (FEDFT-3032).
    """

    def make(groups: list[ParameterGroup], section: TrainingSection) -> torch.optim.Optimizer:
        device = groups[0].parameters[0].device
        if device.type != "cuda":
            raise FedftError(
                Code.OPTIMIZER_NEEDS_CUDA,
                f"training.optimizer is {section.optimizer!r}, which needs a CUDA device; the model is on "
                f"{device.type}",
                hint='set training.optimizer = "adamw", or model.device = "cuda" where there is one',
            )
        import bitsandbytes

        betas = section.beta1, section.beta2
        made: torch.optim.Optimizer = getattr(bitsandbytes.optim, name)(
            grouped(groups), betas=betas, weight_decay=section.weight_decay
        )
        return made

    return make


ADAMW_8BIT = OptimizerKind(_in_8_bits("AdamW8bit"))
PAGED_ADAMW_8BIT = OptimizerKind(_in_8_bits("PagedAdamW8bit"))


class SgdOptions(Options):
    """Of plain gradient descent."""

    momentum: float = Field(0.0, ge=0, lt=1, description="share of the last step that goes on")


def _sgd(groups: list[ParameterGroup], section: TrainingSection) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        grouped(groups), momentum=section.options.momentum, weight_decay=section.weight_decay
    )


SGD = OptimizerKind(_sgd, SgdOptions)
"""Gradient descent with heavy-ball momentum (Polyak 1964); its noise averages out over the steps."""
