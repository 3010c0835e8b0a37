"""Access to the frozen linear modules that can carry an adapter, whatever way they keep their weight."""

from __future__ import annotations

import copy
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedft.errors import Code, FedftError
from fedft.quant.dense import is_linear, is_plain


@runtime_checkable
class FrozenLinear(Protocol):
    """A module with a weight of its own form, such as a quantised one, that can be a base.

    ``forward(x)`` gives ``x Wᵀ + bias``; the rest is named here. ``W`` is ``(out, in)``.
    """

    in_features: int
    out_features: int
    compute_dtype: torch.dtype
    device: torch.device

    def input_gradient(self, grad: Tensor) -> Tensor:
        """Return ``grad W``, ``(..., in)``, in the dtype of ``grad``."""

    def dense_weight(self) -> Tensor:
        """Return W, ``(out, in)``, as the module uses it."""


def is_supported(module: nn.Module) -> bool:
    """Whether the module can carry an adapter."""
    return is_plain(module) or isinstance(module, FrozenLinear)


def placement(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Return the dtype that a supported module computes in, and its device."""
    if is_plain(module):
        weight = cast(Tensor, module.weight)
        return weight.dtype, weight.device
    base = cast(FrozenLinear, module)
    return base.compute_dtype, base.device


def shape_of(module: nn.Module) -> tuple[int, int]:
    """Return (out, in) of a supported module's weight (FEDFT-2110 for another module)."""
    if isinstance(module, Conv1D):
        return cast(Tensor, module.weight).shape[1], cast(Tensor, module.weight).shape[0]
    if is_linear(module):
        return module.out_features, module.in_features
    if isinstance(module, FrozenLinear):
        return module.out_features, module.in_features
    raise FedftError(
        Code.MODULE_NOT_ADAPTABLE,
        f"a module of class {type(module).__name__} cannot carry an adapter",
        hint=_SUPPORTED,
    )


def dense_weight(module: nn.Module) -> Tensor:
    """Return W, ``(out, in)``; for a plain module a view of its weight."""
    if is_linear(module):
        return module.weight.detach()
    if isinstance(module, Conv1D):
        return cast(Tensor, module.weight).detach().T
    return cast(FrozenLinear, module).dense_weight()


def input_gradient(module: nn.Module, grad: Tensor) -> Tensor:
    """Return ``grad W`` for ``grad`` of shape ``(n, out)``."""
    if is_linear(module):
        return grad @ module.weight
    if isinstance(module, Conv1D):
        return grad @ cast(Tensor, module.weight).T
    return cast(FrozenLinear, module).input_gradient(grad)


_SUPPORTED = "supported are torch.nn.Linear, transformers' Conv1D and fedft's quantised linear layers"


def with_weight(module: nn.Module, weight: Tensor) -> nn.Module:
    """Return a plain module like this one on another weight, ``(out, in)``; bias and hooks are shared."""
    stored = weight if is_linear(module) else weight.T.contiguous()
    other = copy.copy(module)
    other._parameters = dict(module._parameters) | {"weight": nn.Parameter(stored, requires_grad=False)}
    return other
