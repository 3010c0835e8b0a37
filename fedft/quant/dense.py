"""Which linear modules keep their weight as one ordinary tensor."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn
from transformers.pytorch_utils import Conv1D


def is_plain(module: nn.Module) -> bool:
    """Whether the module keeps its weight as one ordinary tensor.

    A subclass of ``nn.Linear`` counts if its weight has the kind and shape of a linear's: packed forms have
    neither, and classes such as Falcon's differ in the rounding of their sums alone.
    """
    return isinstance(module, Conv1D) or is_linear(module)


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether the module is a linear layer on an ordinary weight, (out, in)."""
    if not isinstance(module, nn.Linear):
        return False
    weight, shape = module.weight, (module.out_features, module.in_features)
    return isinstance(weight, nn.Parameter) and weight.is_floating_point() and weight.shape == shape
