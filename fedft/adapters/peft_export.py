"""Writing the trained adapters as a LoRA adapter that PEFT loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedft.adapters.attach import AdapterHandle

_PREFIX = "base_model.model."


def export_peft(
    handle: AdapterHandle, folder: Path, *, base_model: str, task_type: str, body: str = ""
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` for ``PeftModel.from_pretrained``.

    ``lora_B lora_A`` is the change of the original weight, with ``alpha = r``, so that PEFT's factor is 1. A
    layer of lower rank than the others is padded with zeros. Modules whose parameters were trained besides
    the adapters go into ``modules_to_save``.

    Args:
        handle: attached adapters with the state to write.
        folder: made when missing; the two files in it are overwritten.
        base_model: hub id or path of the base model, for the configuration.
        task_type: PEFT's name of the task.
        body: name of the submodule that the adapter is for, when it is not the whole model; what was trained
            outside of it is left out.

    Raises:
        FedftError: FEDFT-2115 when the handle is detached.

    """
    frames, state = handle.frames, handle.state()
    factors = {name: frame.factors(frames.values_of(name, state)) for name, frame in frames.items()}
    rank = max(len(lora_a) for lora_a, _ in factors.values())
    tensors: dict[str, Tensor] = {}
    for name, (lora_a, lora_b) in factors.items():
        missing, place = rank - len(lora_a), _PREFIX + _inside(name, body)
        tensors[f"{place}.lora_A.weight"] = F.pad(lora_a, (0, 0, 0, missing))
        tensors[f"{place}.lora_B.weight"] = F.pad(lora_b, (0, missing)).contiguous()
    saved = [] if body else _saved_modules(handle.model, handle.extra_names)
    for module in saved:
        for name, value in handle.model.get_submodule(module).state_dict(prefix=f"{module}.").items():
            tensors[_PREFIX + name] = value.detach().float().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = [_inside(name, body) for name in handle.frames]
    config = _config(handle, base_model, task_type, rank, targets, saved)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _inside(name: str, body: str) -> str:
    return name.removeprefix(f"{body}.") if body else name


def _saved_modules(model: nn.Module, extra_names: list[str]) -> list[str]:
    """Return the outermost modules that hold nothing but trained parameters, or else their owners."""
    trained = set(extra_names)
    found: set[str] = set()
    for name in extra_names:
        module = name.rpartition(".")[0]
        while (parent := module.rpartition(".")[0]) and _names_under(model, parent) <= trained:
            module = parent
        found.add(module)
    return sorted(found)


def _names_under(model: nn.Module, module: str) -> set[str]:
    return {f"{module}.{name}" for name, _ in model.get_submodule(module).named_parameters()}


def _config(
    handle: AdapterHandle,
    base_model: str,
    task_type: str,
    rank: int,
    targets: list[str],
    saved: list[str],
) -> dict[str, Any]:
    transposed = [isinstance(module, Conv1D) for module in handle.originals.values()]
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": all(transposed),
        "target_modules": targets,
        "modules_to_save": saved or None,
    }
