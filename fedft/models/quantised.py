"""Base models whose linear layers are kept in NF4."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedft.config.schema import ModelSection, TaskSection
from fedft.errors import Code, FedftError
from fedft.registries import TASKS

_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def load_nf4(place: str, model: ModelSection, task: TaskSection) -> tuple[Any, list[str]]:
    """Load a base with its body in NF4: dense weights are quantised one by one, NF4 files taken as they are.

    Either way gives the same bits.

    Args:
        place: a folder, or a hub id, whose files are fetched first.
        model: names revision and dtype of the arithmetic.
        task: decides which head there is.

    Returns:
        The model; the names of the parameters that the files lack, or hold in another shape.

    Raises:
        FedftError: as ``fedft.quant.load_quantised`` and ``load_quantising``.

    """
    from fedft.quant import is_quantised, load_quantised, load_quantising

    folder = _folder(place, model.revision)
    kind = TASKS.get(task.kind)
    auto_class, changes = kind.auto_class(), kind.model_changes(task)
    dtype = getattr(torch, model.dtype)
    if is_quantised(folder):
        loaded, missing, _ = load_quantised(folder, auto_class, dtype=dtype, **changes)
        return loaded, missing
    return load_quantising(folder, auto_class, dtype=dtype, **changes)


def save_nf4(model: nn.Module, tokenizer: Any, folder: Path, head: Collection[str]) -> None:
    """Write a base that was loaded with quant = "nf4" to a new folder, without its head.

    Raises:
        FedftError: FEDFT-6008 when ``folder`` exists and is not an empty folder.

    """
    from fedft.quant import save_quantised

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FedftError(
            Code.OUTPUT_NOT_EMPTY, f"{folder} exists and is not an empty folder", hint="name a new folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    save_quantised(model, folder, exclude=head)


def refuse_quantised(place: str, model: ModelSection) -> None:
    """Raise FEDFT-2005 when a model that is to be loaded dense is stored in few bits."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(place, revision=model.revision or None)
    if getattr(config, "quantization_config", None):
        raise FedftError(
            Code.QUANT_NOT_DECLARED,
            f"the weights of {model.source} are stored quantised, but model.quant is {model.quant!r}",
            hint='set model.quant = "nf4" for NF4 weights, or name the model in full precision',
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
