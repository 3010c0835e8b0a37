"""Quantised models in files: written once, loaded without the dense weights ever being in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedft.errors import FedftError
from fedft.quant.linear import NF4Linear
from fedft.quant.weight import STATE, NF4Weight

_SHARD = 2 << 30  # bytes of one file
_DIGEST = "fedft.sha256"
_INDEX = "model.safetensors.index.json"


def save_quantised(model: nn.Module, folder: Path) -> str:
    """Write a transformers model with NF4 layers as safetensors files and a config.json.

    transformers opens the folder as well, with bitsandbytes. A file appears under its name when it is
    complete, the configuration last.

    Returns:
        The digest of the weights, SHA-256 (hex); ``load_quantised`` gives the same.

    Raises:
        FedftError: FEDFT-9013 when the model has no NF4 layer.

    """
    if not any(isinstance(module, NF4Linear) for module in model.modules()):
        raise FedftError("FEDFT-9013", f"{type(model).__name__} has no quantised layer to save")
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(_own_tensors(model)))
    place: dict[str, str] = {}
    digests = []
    for number, shard in enumerate(shards):
        file = _file_name(number, len(shards))
        digests.append(_digest(shard))
        with _complete(folder / file) as partial:
            save_file(shard, partial, metadata={"format": "pt", _DIGEST: digests[-1]})
        place.update(dict.fromkeys(shard, file))
    if len(shards) > 1:
        _write_json(folder / _INDEX, {"metadata": {}, "weight_map": place})
    config: Any = model.config
    _write_json(folder / "config.json", config.to_dict() | {"quantization_config": _bnb_config(model)})
    return _combined(digests)


def load_quantised(folder: Path, auto_class: Any) -> tuple[nn.Module, list[str], str]:
    """Load what ``save_quantised`` wrote, or another model that bitsandbytes stored in NF4.

    Args:
        folder: with config.json and safetensors files.
        auto_class: such as ``AutoModelForCausalLM``; its ``from_config`` makes the model.

    Returns:
        The model, on the CPU, frozen, in evaluation mode; the names of the parameters that the files lack
        (a new classification head), which are zero; the digest of the weights.

    Raises:
        FedftError: FEDFT-9012 (a file is missing, damaged or changed), FEDFT-9011 (not NF4).

    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise FedftError("FEDFT-9012", f"no quantised model in {folder}: {error}") from error
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    with _parameters_on_meta():
        model: Any = auto_class.from_config(config, dtype=dtype)
    state, digest = _read_all(folder)
    quantised = _place_quantised(model, state, dtype)
    result = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    absent = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    missing = [n for n in result.missing_keys if n in absent and n.rpartition(".")[0] not in quantised]
    for name in absent:
        module = model.get_submodule(name.rpartition(".")[0])
        empty = torch.zeros(model.get_parameter(name).shape, dtype=dtype)
        module.register_parameter(name.rpartition(".")[2], nn.Parameter(empty))
    return model.requires_grad_(False).eval(), sorted(missing), digest


def is_quantised(folder: Path) -> bool:
    """Whether a folder holds a model whose weights are stored in NF4."""
    try:
        stored = json.loads((folder / "config.json").read_text()).get("quantization_config") or {}
    except (OSError, ValueError):
        return False
    return bool(stored.get("load_in_4bit")) and stored.get("bnb_4bit_quant_type") == "nf4"


def _place_quantised(model: nn.Module, state: dict[str, Tensor], dtype: torch.dtype) -> set[str]:
    """Put an NF4 layer wherever the state holds one, taking its tensors out of the state."""
    ending = f".weight.{STATE}"
    names = {key.removesuffix(ending) for key in state if key.endswith(ending)}
    modules = dict(model.named_modules())
    for name in names:
        key = f"{name}.weight"
        own = {k[len(key) + 1 :]: state.pop(k) for k in list(state) if k == key or k.startswith(f"{key}.")}
        weight = NF4Weight.from_state(own)
        module = modules.get(name)
        if not isinstance(module, (nn.Linear, Conv1D)) or weight.shape != _shape(module):
            raise FedftError("FEDFT-9012", f"the files hold {name} of {weight.shape}, the model does not")
        bias = state.pop(f"{name}.bias", None)
        if (bias is None) != (module.bias is None):
            raise FedftError("FEDFT-9012", f"the files and the model disagree about a bias of {name}")
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, NF4Linear(weight, bias, dtype))
    return names


def _shape(module: nn.Linear | Conv1D) -> tuple[int, int]:
    rows, columns = module.weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state, each tied weight once (``tie_weights`` restores the rest), no two tensors in one memory."""
    seen: set[tuple[int, torch.Size]] = set()
    result = {}
    for name, tensor in model.state_dict().items():
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


def _read_all(folder: Path) -> tuple[dict[str, Tensor], str]:
    index = folder / _INDEX
    try:
        names = ["model.safetensors"]
        if index.exists():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        state: dict[str, Tensor] = {}
        digests = []
        for name in names:
            tensors, recorded = _read(folder / Path(name).name)
            digests.append(_digest(tensors))
            if recorded not in (None, digests[-1]):
                raise FedftError(
                    "FEDFT-9012", f"{folder / name}: digest {digests[-1][:12]}…, it records {recorded[:12]}…",
                    hint="the file was changed or damaged; fetch it again",
                )  # fmt: skip
            state |= tensors
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise FedftError("FEDFT-9012", f"no readable weights in {folder}: {error}") from error
    return state, _combined(digests)


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(_DIGEST)  # noqa: SIM118


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(b"fedft tensors 1")
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _combined(digests: list[str]) -> str:
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


def _bnb_config(model: nn.Module) -> dict[str, Any]:
    """What tells transformers to open the files with bitsandbytes, and which linear layers are dense."""
    quantised = [module for module in model.modules() if isinstance(module, NF4Linear)]
    dense = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": all(module.nf4.nested is not None for module in quantised),
        "bnb_4bit_compute_dtype": str(quantised[0].compute_dtype).removeprefix("torch."),
        "llm_int8_skip_modules": dense,
    }


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Make modules whose parameters have no memory; buffers, which files may lack, are real."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, None if param is None else nn.Parameter(param.to("meta"), param.requires_grad))

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
