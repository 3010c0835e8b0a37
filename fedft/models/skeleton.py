"""A base model's layers without their weights, from its configuration alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fedft.config.schema import ModelSection, TaskSection
from fedft.errors import Code, FedftError
from fedft.models.plain import NO_CODE, require_plain
from fedft.models.sources import resolve_source
from fedft.registries import TASKS


def model_maker(model: ModelSection, task: TaskSection) -> Callable[[], nn.Module]:
    """Return what makes the model on torch's default device, with weights of no meaning.

    Raises:
        FedftError: FEDFT-2001, FEDFT-2002 (no such model, no configuration of it), FEDFT-2008, FEDFT-2009 (it
            brings code, its weights are no safetensors).

    """
    from transformers import AutoConfig

    kind = TASKS.get(task.kind)
    place, revision = resolve_source(model.source), model.revision or None
    try:
        require_plain(place, model.revision)
        described = AutoConfig.from_pretrained(
            place, revision=revision, **kind.model_changes(task), **NO_CODE
        )
    except (OSError, ValueError) as error:
        raise FedftError(
            Code.MODEL_LOAD_FAILED,
            f"cannot read the configuration of the model {model.source}: {error}",
            hint="without network, download it elsewhere and name its folder in model.source",
        ) from error

    def make() -> nn.Module:
        made: nn.Module = kind.auto_class().from_config(described, dtype=getattr(torch, model.dtype))
        return made

    return make


def load_skeleton(model: ModelSection, task: TaskSection) -> nn.Module:
    """Return the model on the meta device: names and shapes of its layers, no weight read or allocated.

    Raises:
        FedftError: as ``model_maker``.

    """
    with torch.device("meta"):
        return model_maker(model, task)()
