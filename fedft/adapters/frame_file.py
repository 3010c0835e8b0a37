"""Frames as safetensors: what reading and checking them has in common, whatever their kind."""

from __future__ import annotations

import math

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fedft.errors import Code, FedftError


def read_tensors(data: bytes) -> dict[str, dict[str, Tensor]]:
    """Decode a safetensors file into tensors by module and part, whose names are ``module.part``.

    Raises:
        FedftError: FEDFT-2109 when the bytes are no such file.

    """
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FedftError(
            Code.FRAME_ENCODING_INVALID, f"frames: {len(data)} bytes are not safetensors: {error}"
        ) from None
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        groups.setdefault(name, {})[part] = tensor
    return groups


def require_canonical(found: bytes, data: bytes, form: str) -> None:
    """Refuse bytes that are not what their content is encoded to (FEDFT-2109)."""
    if found != data:
        raise FedftError(
            Code.FRAME_ENCODING_INVALID, f"frames: {len(data)} bytes are not in the canonical form {form}"
        )


def read_scale(name: str, value: Tensor) -> float:
    """Return a frame's scale from its float64 tensor of one value (FEDFT-2109)."""
    if (value.dtype, tuple(value.shape)) != (torch.float64, (1,)):
        raise FedftError(
            Code.FRAME_ENCODING_INVALID, f"frame {name!r}: scale is {value.dtype} {tuple(value.shape)}"
        )
    return float(value)


def read_flag(name: str, part: str, value: Tensor) -> bool:
    """Return a frame's flag from its one byte of 0 or 1 (FEDFT-2109)."""
    if (value.dtype, tuple(value.shape)) != (torch.uint8, (1,)) or int(value) > 1:
        raise FedftError(Code.FRAME_ENCODING_INVALID, f"frame {name!r}: {part} is not one byte of 0 or 1")
    return bool(value)


def check_matrix(part: str, value: Tensor) -> None:
    """Refuse what is not a finite float32 matrix (FEDFT-2101)."""
    if value.dtype != torch.float32 or value.dim() != 2:
        raise FedftError(
            Code.FRAME_MALFORMED, f"frame: {part} is {value.dtype} {tuple(value.shape)}, not a float32 matrix"
        )
    if not torch.isfinite(value).all():
        raise FedftError(Code.FRAME_MALFORMED, f"frame: {part} holds a value that is not finite")


def check_sizes(rank: int, shape: tuple[int, int], scale: float) -> None:
    """Refuse a rank that does not fit the weight (FEDFT-2104), or a scale that is no factor (FEDFT-2101)."""
    if not 1 <= rank <= min(shape):
        raise FedftError(Code.RANK_OUT_OF_RANGE, f"rank {rank} does not fit a weight of shape {shape}")
    if not (math.isfinite(scale) and scale > 0):
        raise FedftError(Code.FRAME_MALFORMED, f"frame: scale is {scale}, it must be finite and positive")
