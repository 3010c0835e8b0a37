"""Quantised models as files, which ``loading`` reads again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedft.errors import Code, FedftError
from fedft.quant.linear import QuantisedLinear

_SHARD = 2 << 30  # bytes of one file
DIGEST = "fedft.sha256"
INDEX = "model.safetensors.index.json"


def save_quantised(model: nn.Module, folder: Path, exclude: Collection[str] = ()) -> str:
    """Write a transformers model with quantised layers as safetensors files and a config.json.

    A file appears under its name when it is
    complete, the configuration last.

    Args:
        model: with quantised layers, all in one format.
        folder: made when missing.
        exclude: names of weights that are left out, such as those of an untrained head.

    Returns:
        The digest of the weights, SHA-256 (hex); ``load_quantised`` gives the same.

    Raises:
        FedftError: FEDFT-9013 when the model has no quantised layer.

    """
    if not _quantised(model):
        raise FedftError(
            Code.MODULE_NOT_QUANTISABLE, f"{type(model).__name__} has no quantised layer to save"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(_own_tensors(model, exclude)))
    place: dict[str, str] = {}
    digests = []
    for number, shard in enumerate(shards):
        file = _file_name(number, len(shards))
        digests.append(digest_of(shard))
        with _complete(folder / file) as partial:
            save_file(shard, partial, metadata={"format": "pt", DIGEST: digests[-1]})
        place.update(dict.fromkeys(shard, file))
    if len(shards) > 1:
        _write_json(folder / INDEX, {"metadata": {}, "weight_map": place})
    config: Any = model.config
    _write_json(folder / "config.json", config.to_dict() | {"quantization_config": _description(model)})
    return combined(digests)


def description(folder: Path) -> dict[str, Any]:
    """Return what a model's config.json says of its quantised weights; nothing for a model without."""
    try:
        return json.loads((folder / "config.json").read_text()).get("quantization_config") or {}
    except (OSError, ValueError, AttributeError):
        return {}


def _own_tensors(model: nn.Module, exclude: Collection[str]) -> dict[str, Tensor]:
    """The state, each tied weight once (``tie_weights`` restores the rest), no two tensors in one memory."""
    seen: set[tuple[int, torch.Size]] = set()
    result = {}
    for name, tensor in model.state_dict().items():
        if name in exclude:
            continue
        tensor = tensor.cpu().contiguous()
        if name.endswith("quant_map"):
            tensor = tensor.clone()  # in memory one copy serves all layers
        identity = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() == 0 or identity not in seen:
            seen.add(identity)
            result[name] = tensor
    return result


def _shards(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > _SHARD:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05}-of-{count:05}.safetensors"


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the names, dtypes, shapes and bytes of one file's tensors."""
    digest = hashlib.sha256(b"fedft tensors 1")
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def combined(digests: list[str]) -> str:
    """Return the digest of a model from those of its files, in the order of their names."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Give a path to write to, and move it to its name when all is written."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with _complete(path) as partial:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _description(model: nn.Module) -> dict[str, Any]:
    """What tells a reader how the linear layers are stored, and which are dense."""
    quantised = _quantised(model)
    dense = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    dtype = str(quantised[0].compute_dtype).removeprefix("torch.")
    return quantised[0].format.describe([module.stored for module in quantised], dense, dtype)


def _quantised(model: nn.Module) -> list[QuantisedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantisedLinear)]
