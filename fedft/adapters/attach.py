"""Putting frames on a model and taking them off again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from fedft.adapters import frozen
from fedft.adapters.head import FullPrecisionHead
from fedft.adapters.interface import AdapterLayer, Frames, tensor_name
from fedft.adapters.linear import AdaptedLinear
from fedft.adapters.shared_input import share_inputs
from fedft.adapters.targets import refuse_tied
from fedft.errors import Code, FedftError


class AdapterHandle:
    """The adapters of one model: their state in, their state out, and the way back.

    A state maps names to float32 CPU tensors: each layer's trained parts (``tensor_name``), and each extra
    trainable parameter under its own name. Made by ``attach``.
    """

    def __init__(self, model: nn.Module, frames: Frames, extra_trainable: Sequence[str]) -> None:
        # Everything that can be refused is refused before the model is touched.
        self.originals = _checked_modules(model, frames)
        extras = _matching_parameters(model, extra_trainable, frames)
        self.layers = {name: _adapted(name, self.originals[name], frames) for name in frames}
        self.model = model
        self.frames = frames
        self._requires_grad = {name: p.requires_grad for name, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self._head = FullPrecisionHead(model, extras)
        for name, layer in self.layers.items():
            _replace(model, name, layer)
        share_inputs({name: x for name, x in self.layers.items() if isinstance(x, AdaptedLinear)})
        self._attached = True

    @property
    def names(self) -> list[str]:
        """Names of the state's tensors: those of the adapted modules, then the extra parameters."""
        return [*self._parts(), *self._head.parameters]

    @property
    def extra_names(self) -> list[str]:
        """Names of the trainable parameters besides the adapters', such as a classification head."""
        return list(self._head.parameters)

    def named_trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return every trainable parameter by its name in the state.

        Raises:
            FedftError: FEDFT-2115 (detached), FEDFT-2117 (one is no longer float32).

        """
        self._require_attached()
        found = self._parts() | self._head.parameters
        for name, parameter in found.items():
            if parameter.dtype != torch.float32:
                raise FedftError(
                    Code.ADAPTER_STATE_MISMATCH,
                    f"trainable parameter {name} has become {parameter.dtype}, training needs float32",
                    hint="set the model's dtype before attaching",
                )
        return found

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return every trainable parameter, in the order of ``names``."""
        return list(self.named_trainable_parameters().values())

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the state, float32 on the CPU."""
        parameters = self.named_trainable_parameters()
        return {name: p.detach().to("cpu", torch.float32, copy=True) for name, p in parameters.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set the state; all of it is checked before any of it is written.

        Raises:
            FedftError: FEDFT-2117 (names, shape, dtype), FEDFT-2118 (not finite), FEDFT-2115 (detached).

        """
        parameters = self.named_trainable_parameters()
        if set(state) != set(parameters):
            missing, unknown = sorted(set(parameters) - set(state)), sorted(set(state) - set(parameters))
            raise FedftError(
                Code.ADAPTER_STATE_MISMATCH,
                f"adapter state lacks {missing[:3]} and has unknown {unknown[:3]}",
            )
        for name, parameter in parameters.items():
            _check_value(name, state[name], parameter)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state[name])

    def detach(self) -> nn.Module:
        """Put the original modules, parameter values and requires_grad flags back; return the model."""
        self._require_attached()
        self._head.restore()
        self.release()
        return self.model

    def release(self) -> None:
        """Put the original modules back and leave the extra parameters as trained (used by merge)."""
        self._require_attached()
        self._head.release()
        for name, original in self.originals.items():
            _replace(self.model, name, original)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._requires_grad[name])
        self._attached = False

    def _parts(self) -> dict[str, nn.Parameter]:
        return {
            tensor_name(name, part): parameter
            for name, layer in self.layers.items()
            for part, parameter in layer.trainable().items()
        }

    def _require_attached(self) -> None:
        if not self._attached:
            raise FedftError(Code.ATTACHMENT_STATE, "the adapters have been detached from the model")


def attach(model: nn.Module, frames: Frames, *, extra_trainable: Sequence[str] = ()) -> AdapterHandle:
    """Freeze the model and put an adapter on every module that the frames name.

    Args:
        model: changed in place, in its final dtype and on its final device.
        frames: by module name.
        extra_trainable: names or shell patterns of parameters trained besides the adapters (``classifier``
            means everything under it); they are kept, computed and exchanged in float32.

    Raises:
        FedftError: FEDFT-2110 (no such module, or one that cannot be adapted), FEDFT-2113 (tied),
            FEDFT-2114 (shape), FEDFT-2115 (adapted already), FEDFT-2116 (a pattern matches nothing).

    """
    return AdapterHandle(model, frames, extra_trainable)


def _checked_modules(model: nn.Module, frames: Frames) -> dict[str, nn.Module]:
    if any(isinstance(module, AdapterLayer) for module in model.modules()):
        raise FedftError(
            Code.ATTACHMENT_STATE, "the model carries adapters already", hint="detach them first"
        )
    modules = dict(model.named_modules())
    for name, frame in frames.items():
        if name not in modules:
            raise FedftError(
                Code.MODULE_NOT_ADAPTABLE, f"the model has no module {name!r}, which a frame is for"
            )
        shape = frozen.shape_of(modules[name])
        if shape != frame.shape:
            raise FedftError(
                Code.FRAME_SHAPE_MISMATCH, f"{name}: frame for {frame.shape}, the weight is {shape}"
            )
    refuse_tied(model, list(frames))
    return {name: modules[name] for name in frames}


def _matching_parameters(model: nn.Module, patterns: Sequence[str], frames: Frames) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    chosen: set[str] = set()
    for pattern in patterns:
        found = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not found:
            raise FedftError(
                Code.EXTRA_PARAMETER_NOT_FOUND, f"extra trainable pattern {pattern!r} matches no parameter"
            )
        chosen |= found
    for name in chosen:
        if name.rpartition(".")[0] in frames:
            raise FedftError(
                Code.EXTRA_PARAMETER_NOT_FOUND,
                f"{name} belongs to an adapted module, its base must stay frozen",
            )
    refuse_tied(model, sorted({name.rpartition(".")[0] for name in chosen}))
    return sorted(chosen)


def _adapted(name: str, module: nn.Module, frames: Frames) -> AdapterLayer:
    layer: AdapterLayer = frames[name].adapt(name, module)
    return layer.train(module.training)


def _check_value(name: str, value: Tensor, parameter: nn.Parameter) -> None:
    if not value.is_floating_point() or value.shape != parameter.shape:
        raise FedftError(
            Code.ADAPTER_STATE_MISMATCH,
            f"adapter state {name} is {value.dtype} {tuple(value.shape)}, expected {tuple(parameter.shape)}",
        )
    if not torch.isfinite(value).all():
        raise FedftError(
            Code.ADAPTER_STATE_NOT_FINITE, f"adapter state {name} holds a value that is not finite"
        )


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
