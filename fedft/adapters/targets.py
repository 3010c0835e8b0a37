"""Which modules of a model carry an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn

from fedft.adapters import frozen
from fedft.errors import Code, FedftError


def resolve_targets(model: nn.Module, patterns: Sequence[str] | Literal["auto"]) -> list[str]:
    """Return the sorted names of the modules that the patterns name.

    Args:
        model: a model without adapters.
        patterns: names, ends of names (``q_proj``) or shell patterns (``model.layers.[0-3].mlp.*``);
            ``"auto"`` means every linear of the blocks (``block_linears``).

    Raises:
        FedftError: FEDFT-2111 (a pattern matches no linear module), FEDFT-2112 (no linear in any
            block), FEDFT-2113 (a target shares its weight with another module).

    """
    if patterns == "auto":
        found = sorted(_defaults(model))
        refuse_tied(model, found)
        return found
    linears = [name for name, module in model.named_modules() if name and frozen.is_supported(module)]
    targets: set[str] = set()
    for pattern in patterns:
        found = [name for name in linears if _matches(name, pattern)]
        if not found:
            raise FedftError(
                Code.TARGET_NOT_FOUND,
                f"target pattern {pattern!r} matches none of the model's {len(linears)} linear modules",
                hint=f"they end in {sorted({name.rpartition('.')[2] for name in linears})}",
            )
        targets.update(found)
    if not targets:
        raise FedftError(Code.TARGET_NOT_FOUND, "the list of target patterns is empty", hint='use "auto"')
    refuse_tied(model, sorted(targets))
    return sorted(targets)


def refuse_tied(model: nn.Module, targets: Sequence[str]) -> None:
    """Raise FEDFT-2113 when a target's weight is used under any other name in the model."""
    owners: dict[tuple[int, int], set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.numel():
            owners.setdefault(_place(parameter), set()).add(name)
    for target in targets:
        for name, parameter in model.get_submodule(target).named_parameters():
            tied = sorted(owners[_place(parameter)] - {f"{target}.{name}"})
            if tied:
                raise FedftError(
                    Code.TARGET_WEIGHT_TIED,
                    f"target {target} shares its {name} with {tied[0]}: adapting one would change both",
                    hint="leave it out of the targets",
                )


def _place(parameter: Tensor) -> tuple[int, int]:
    """Where it lies: also for what shares memory without being the same Parameter, and without memory."""
    return parameter.untyped_storage()._cdata, int(parameter.storage_offset())


def block_linears(model: nn.Module) -> list[str]:
    """Return the names of all linear modules in a model's repeated blocks: attention and MLP.

    Embeddings, their projections, poolers and heads lie outside the blocks, whatever the architecture calls
    them. In a model of several modalities only the language model's blocks count. What maps to a single
    number (the gate of a shared expert) is left out: there is no matrix to adapt.
    """
    inside = _language_model(model)
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(inside)
        and any(part.isdigit() for part in name.split("."))
        and frozen.is_supported(module)
        and min(frozen.shape_of(module)) > 1
    ]


def _language_model(model: nn.Module) -> str:
    """Return the prefix of the language model in one of several modalities; empty for others."""
    names = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "language_model"]
    return f"{names[0]}." if names else ""


def _defaults(model: nn.Module) -> list[str]:
    found = block_linears(model)
    if not found:
        raise FedftError(
            Code.NO_DEFAULT_TARGETS,
            f"{type(model).__name__} has no linear modules in repeated blocks to adapt by default",
            hint="name the target modules in the configuration",
        )
    return found


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
