"""Base models whose linear layers are kept in few bits."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedft.config.schema import ModelSection, TaskSection
from fedft.errors import Code, FedftError
from fedft.files import new_folder
from fedft.models.plain import NO_CODE
from fedft.registries import QUANT, TASKS

_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def load_stored(place: str, model: ModelSection, task: TaskSection) -> tuple[Any, list[str]]:
    """Load a base with its body quantised: dense weights one by one, stored ones are taken as they are.

    Either way gives the same bits.

    Args:
        place: a folder, or a hub id, whose files are fetched first.
        model: names format, revision and dtype of the arithmetic.
        task: decides which head there is.

    Returns:
        The model; the names of the parameters that the files lack, or hold in another shape.

    Raises:
        FedftError: FEDFT-2005 when the files are in another format; as ``fedft.quant.load_quantised`` and
            ``load_quantising``.

    """
    from fedft.quant import description, load_quantised, load_quantising

    folder = _folder(place, model.revision)
    kind = TASKS.get(task.kind)
    auto_class, changes = kind.auto_class(), kind.model_changes(task)
    dtype = getattr(torch, model.dtype)
    format, described = QUANT.get(model.quant), description(folder)
    if not described:
        return load_quantising(folder, auto_class, format, dtype=dtype, **changes)
    if not format.reads(described):
        raise _stored_otherwise(model)
    loaded, missing, _ = load_quantised(folder, auto_class, format, dtype=dtype, **changes)
    return loaded, missing


def save_stored(model: nn.Module, tokenizer: Any, folder: Path, head: Collection[str]) -> None:
    """Write a base that was loaded quantised to a new folder, without its head.

    Raises:
        FedftError: FEDFT-6008 when ``folder`` exists and is not an empty folder.

    """
    from fedft.quant import save_quantised

    with new_folder(folder) as begun:
        tokenizer.save_pretrained(begun)
        save_quantised(model, begun, exclude=head)


def refuse_quantised(place: str, model: ModelSection) -> None:
    """Raise FEDFT-2005 when a model that is to be loaded dense is stored in few bits."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(place, revision=model.revision or None, **NO_CODE)
    if getattr(config, "quantization_config", None):
        raise _stored_otherwise(model)


def stored_format(folder: Path) -> str:
    """Return the name of the format that a folder's weights are in; "none" when they are dense.

    Raises:
        FedftError: FEDFT-2005 when they are in a format that none here reads.

    """
    from fedft.quant import description

    described = description(folder)
    if not described:
        return "none"
    for name in QUANT:
        if QUANT.get(name).reads(described):
            return name
    method = described.get("quant_method")
    raise FedftError(Code.QUANT_NOT_DECLARED, f"the weights in {folder} are stored in a format of {method!r}")


def _stored_otherwise(model: ModelSection) -> FedftError:
    return FedftError(
        Code.QUANT_NOT_DECLARED,
        f"the weights of {model.source} are stored quantised, but model.quant is {model.quant!r}",
        hint="set model.quant to the format of the weights, or name the model in full precision",
    )


def _folder(place: str, revision: str) -> Path:
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            place, revision=revision or None, allow_patterns=list(_FILES), ignore_patterns="consolidated*"
        )
    )
