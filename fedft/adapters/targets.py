"""Which modules of a model carry an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn

from fedft.adapters import frozen
from fedft.errors import Code, FedftError

_DECODER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ENCODER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
# All attention and MLP linears by transformers' model_type; no embeddings, pooler or head.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _DECODER),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), _ENCODER),
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "distilbert": (
        *("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        *("ffn.lin1", "ffn.lin2"),
    ),
}


def resolve_targets(model: nn.Module, patterns: Sequence[str] | Literal["auto"]) -> list[str]:
    """Return the sorted names of the modules that the patterns name.

    Args:
        model: a model without adapters.
        patterns: names, ends of names (``q_proj``) or shell patterns (``model.layers.[0-3].mlp.*``);
            ``"auto"`` means every attention and MLP linear of a known architecture.

    Raises:
        FedftError: FEDFT-2111 (a pattern matches no linear module), FEDFT-2112 (no default for the
            architecture), FEDFT-2113 (a target shares its weight with another module).

    """
    chosen = _defaults(model) if patterns == "auto" else list(patterns)
    linears = [name for name, module in model.named_modules() if name and frozen.is_supported(module)]
    targets: set[str] = set()
    for pattern in chosen:
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


def _defaults(model: nn.Module) -> list[str]:
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in ARCHITECTURES:
        raise FedftError(
            Code.NO_DEFAULT_TARGETS,
            f"no default targets for architecture {kind!r}; known are {sorted(ARCHITECTURES)}",
            hint="name the target modules in the configuration",
        )
    return list(ARCHITECTURES[kind])


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
