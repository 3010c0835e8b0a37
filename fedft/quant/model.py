"""Quantising a model layer by layer, and quantised models in files."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fedft.errors import Code, FedftError
from fedft.quant.dense import is_plain
from fedft.quant.interface import QuantFormat
from fedft.quant.linear import QuantisedLinear


def quantisable(model: nn.Module) -> list[str]:
    """Return the names of the linear modules that can be quantised, sorted.

    Every ``nn.Linear`` and ``Conv1D`` inside the model's body: not the output layer or a classification
    head, whose errors go straight into the loss, and none whose weight another module uses too.
    """
    prefix = getattr(model, "base_model_prefix", "")
    inside = f"{prefix}." if prefix and hasattr(model, prefix) else ""
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    names = [
        name
        for name, module in model.named_modules()
        if is_plain(module) and name.startswith(inside) and owners[id(module.weight)] == 1
    ]
    return sorted(names)


def quantise_model(model: nn.Module, format: QuantFormat, names: Sequence[str] | None = None) -> None:
    """Replace linear modules by their quantised form, in place, freeing each dense weight in turn.

    Args:
        model: in the dtype it computes in; without adapters.
        format: to store the weights in.
        names: of the modules; default ``quantisable(model)``.

    Raises:
        FedftError: FEDFT-9013 (no such module, or one that cannot be quantised), FEDFT-9010 (a weight is
            not finite); modules before that one have been replaced.

    """
    modules = dict(model.named_modules())
    chosen = quantisable(model) if names is None else list(names)
    if not chosen:
        raise FedftError(
            Code.MODULE_NOT_QUANTISABLE, f"{type(model).__name__} has no linear module to quantise"
        )
    for name in chosen:
        if name not in modules:
            raise FedftError(Code.MODULE_NOT_QUANTISABLE, f"the model has no module {name!r} to quantise")
        replacement = QuantisedLinear.of(modules.pop(name), format)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacement)
