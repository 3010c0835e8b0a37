"""The identity of a base model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import torch
from torch import Tensor, nn


def weights_digest(model: nn.Module, exclude: Collection[str] = ()) -> str:
    """SHA-256 (hex) over the names, dtypes, shapes and bytes of a model's weights, in order of names.

    Args:
        model: any module; its persistent buffers count, its place (device) does not.
        exclude: names that are left out, such as those of a new classification head.

    """
    digest = hashlib.sha256(b"fedft base 1")
    for name, tensor in sorted(model.state_dict().items()):
        if name in exclude:
            continue
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"\n{name} {tensor.dtype} {shape} ".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
