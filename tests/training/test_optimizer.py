"""Which AdamW steps."""

from __future__ import annotations

from typing import Any

import bitsandbytes
import pytest
import torch

from fedft.config.schema import TrainingSection
from fedft.errors import FedftError
from fedft.training.loop import train_local
from fedft.training.optimizer import adamw_class

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_torch_unless_another_is_named() -> None:
    assert adamw_class("adamw", CPU) is adamw_class("adamw", CUDA) is torch.optim.AdamW


@pytest.mark.parametrize("name", ["adamw8bit", "paged-adamw8bit"])
def test_eight_bits_are_refused_without_cuda(name: str) -> None:
    layer, samples, section = torch.nn.Linear(2, 2), [object()], TrainingSection(optimizer=name)
    task: Any = None  # not reached

    with pytest.raises(FedftError, match=rf"FEDFT-3032.*{name}.*cpu"):
        train_local(
            layer, task, samples, section, adapters=list(layer.parameters())[:1], generator=torch.Generator()
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("adamw8bit", bitsandbytes.optim.AdamW8bit), ("paged-adamw8bit", bitsandbytes.optim.PagedAdamW8bit)],
)
def test_on_cuda_it_is_bitsandbytes_with_the_same_arguments(name: str, expected: type) -> None:
    chosen = adamw_class(name, CUDA)

    made = chosen([torch.nn.Parameter(torch.zeros(4, 4))], lr=1e-3, betas=(0.8, 0.9), weight_decay=0.1)
    assert chosen is expected
    assert made.param_groups[0]["betas"] == (0.8, 0.9)
    assert made.param_groups[0]["weight_decay"] == 0.1
