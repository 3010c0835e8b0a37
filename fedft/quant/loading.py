"""Quantised models from files: the dense weights are never in memory together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedft.errors import Code, FedftError
from fedft.quant import skeleton
from fedft.quant.files import DIGEST, INDEX, combined, digest_of
from fedft.quant.interface import QuantFormat, StoredWeight
from fedft.quant.model import quantisable, quantise_model


def load_quantised(
    folder: Path, auto_class: Any, format: QuantFormat, *, dtype: torch.dtype | None = None, **changes: Any
) -> tuple[nn.Module, list[str], str]:
    """Load what ``save_quantised`` wrote, or what another library stored in a format that this one reads.

    Args:
        folder: with config.json and safetensors files.
        auto_class: such as ``AutoModelForCausalLM``; its ``from_config`` makes the model.
        format: that the weights are in.
        dtype: of the arithmetic and of all weights that are not quantised; None: as stored.
        changes: configuration entries to replace, such as ``num_labels``.

    Returns:
        The model, on the CPU, frozen, in evaluation mode; the names of the parameters that the files lack,
        or hold in another shape (a new classification head), which are zero; the digest of the files.

    Raises:
        FedftError: FEDFT-9012 (a file is missing, damaged or changed), FEDFT-9011 (a damaged weight).

    """
    model, computes = skeleton.build(folder, auto_class, dtype, changes)
    names = skeleton.Names(model)
    state: dict[str, Tensor] = {}
    weights: dict[str, StoredWeight] = {}
    digests = []
    for path in weight_files(folder):
        digests.append(_take_file(path, names, state, weights, format, dtype))
    return model, skeleton.fill(model, state, weights, format, computes), combined(digests)


def load_quantising(
    folder: Path, auto_class: Any, format: QuantFormat, *, dtype: torch.dtype, **changes: Any
) -> tuple[nn.Module, list[str]]:
    """Load a model from dense safetensors files and quantise its body, one weight at a time.

    At no time is more than one dense weight of the body in memory, unless transformers converts the files
    while it loads them (merges experts, renames layers): then it loads all, and the weights are quantised
    afterwards. Arguments and results as ``load_quantised``'s, and the model is that one's bit for bit; there
    is no digest of the files.

    Raises:
        FedftError: FEDFT-9012 (a file is missing or damaged), FEDFT-9013 (nothing to quantise),
            FEDFT-9010 (a weight is not finite).

    """
    model, _ = skeleton.build(folder, auto_class, dtype, changes)
    names, chosen = skeleton.Names(model), set(quantisable(model))
    if not chosen:
        raise FedftError(
            Code.MODULE_NOT_QUANTISABLE, f"{type(model).__name__} has no linear module to quantise"
        )
    if _converted_by_transformers(model, names, folder):
        return _load_dense_and_quantise(folder, auto_class, format, dtype, changes)
    transposed = {name for name in chosen if isinstance(model.get_submodule(name), Conv1D)}
    state: dict[str, Tensor] = {}
    weights: dict[str, StoredWeight] = {}
    for path in weight_files(folder):
        for key in _keys(path):
            name = names.find(key)
            module, _, kind = (name or "").rpartition(".")
            if name is None:
                continue
            if kind == "weight" and module in chosen:
                tensor = _tensor(path, key)
                weights[module] = format.quantise(tensor.T.contiguous() if module in transposed else tensor)
            else:
                state[name] = _converted(_tensor(path, key).clone(), dtype)
    return model, skeleton.fill(model, state, weights, format, dtype)


def _converted_by_transformers(model: Any, names: skeleton.Names, folder: Path) -> bool:
    """Whether the files lack parameters of a model that transformers makes of others while it loads."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    held = {names.find(key) for path in weight_files(folder) for key in _keys(path)}
    lacking = {name for name, _ in model.named_parameters()} - held
    return bool(lacking and get_model_conversion_mapping(model, add_legacy=False))


def _load_dense_and_quantise(
    folder: Path, auto_class: Any, format: QuantFormat, dtype: torch.dtype, changes: dict[str, Any]
) -> tuple[nn.Module, list[str]]:
    model, found = auto_class.from_pretrained(
        folder,
        dtype=dtype,
        output_loading_info=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # a head for other classes; the caller refuses what else is missing
        **changes,
    )
    quantise_model(model, format)
    mismatched = (key for key, *_ in found["mismatched_keys"])
    return model.requires_grad_(False).eval(), sorted({*found["missing_keys"], *mismatched})


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model, in the order of their names.

    Raises:
        FedftError: FEDFT-9012 when there are none, or the index is damaged.

    """
    index = folder / INDEX
    try:
        names = ["model.safetensors"]
        if index.exists():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError) as error:
        raise FedftError(Code.QUANTISED_FILES_INVALID, f"no readable weights in {folder}: {error}") from error
    paths = [folder / Path(name).name for name in names]
    for path in paths:
        if not path.is_file():
            raise FedftError(
                Code.QUANTISED_FILES_INVALID, f"there is no {path}", hint="weights must be safetensors files"
            )
    return paths


def _take_file(
    path: Path,
    names: skeleton.Names,
    state: dict[str, Tensor],
    weights: dict[str, StoredWeight],
    format: QuantFormat,
    dtype: torch.dtype | None,
) -> str:
    """Sort one file's tensors into dense ones and quantised weights; return its digest."""
    tensors, recorded = _read(path)
    digest = digest_of(tensors)
    if recorded not in (None, digest):
        raise FedftError(
            Code.QUANTISED_FILES_INVALID,
            f"{path}: digest {digest[:12]}…, it records {recorded[:12]}…",
            hint="the file was changed or damaged; fetch it again",
        )
    for key in [key for key in tensors if key.endswith(f".weight.{format.marker}")]:
        stored = key.removesuffix(f".{format.marker}")
        parts = [k for k in tensors if k == stored or k.startswith(f"{stored}.")]
        weight = format.read({k[len(stored) + 1 :]: tensors.pop(k) for k in parts})
        found = names.find(stored)
        if found is None:
            raise FedftError(Code.QUANTISED_FILES_INVALID, f"{path} holds {stored}, the model does not")
        weights[found.removesuffix(".weight")] = weight
    for key, tensor in tensors.items():
        if (name := names.find(key)) is not None:
            state[name] = _converted(tensor, dtype)
    return digest


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(DIGEST)  # noqa: SIM118


def _keys(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.keys())


def _tensor(path: Path, key: str) -> Tensor:
    # Opened anew for each: an open file's pages stay in memory once they have been read.
    with _opened(path) as file:
        tensor: Tensor = file.get_tensor(key)
        return tensor


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise FedftError(Code.QUANTISED_FILES_INVALID, f"no readable weights in {path}: {error}") from error
