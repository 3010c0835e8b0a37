"""Parameters trained as they are, besides the adapters: a classification head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class FullPrecisionHead:
    """Keeps some parameters of a model trainable in float32 while the rest computes in its own dtype.

    A bfloat16 parameter would lose small updates and could not hold an average; the modules that own one
    of these parameters are therefore widened to float32 and their inputs cast.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._model = model
        self._saved: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self.parameters: dict[str, nn.Parameter] = {}
        for owner in sorted({name.rpartition(".")[0] for name in names}):
            self._widen(owner)
        for name in names:
            self.parameters[name] = model.get_parameter(name)
            self.parameters[name].requires_grad_(True)

    def _widen(self, owner: str) -> None:
        module = self._model.get_submodule(owner)
        for name, parameter in module.named_parameters(owner, recurse=False):
            self._saved[name] = parameter.detach().clone()
            parameter.data = parameter.data.float()
        self._hooks.append(module.register_forward_pre_hook(_cast_to_float32))

    def restore(self) -> None:
        """Give the parameters the values and dtypes that they had."""
        for name, value in self._saved.items():
            parameter = self._model.get_parameter(name)
            parameter.data = value

    def release(self) -> None:
        """Stop casting; parameters go back to the dtype that they had."""
        for hook in self._hooks:
            hook.remove()
        for name, value in self._saved.items():
            parameter = self._model.get_parameter(name)
            parameter.data = parameter.data.to(value.dtype)


def _cast_to_float32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)
