"""Gradients that must be there."""

from __future__ import annotations

from torch import Tensor


def grad(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter or input that has one."""
    assert parameter.grad is not None
    return parameter.grad
