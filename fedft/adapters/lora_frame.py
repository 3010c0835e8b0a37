"""What LoRA starts from: A of every adapted layer, drawn from the seed; B starts at zero."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from fedft.adapters import frozen
from fedft.adapters.frame_file import (
    check_matrix,
    check_sizes,
    read_flag,
    read_scale,
    read_tensors,
    require_canonical,
)
from fedft.adapters.interface import LayerFrames
from fedft.adapters.lora_linear import LoraLinear
from fedft.errors import Code, FedftError

LORA_A, LORA_B = "lora_A", "lora_B"
_FORMAT = "fedft-lora/1"
_PARTS = ("a", "out_features", "scale", "train_a")


@dataclass(frozen=True, eq=False)
class LoraFrame:
    """The fixed part of one LoRA layer, ``y = W x + scale * B A x`` with ``B = 0`` at the start.

    Args:
        a: ``(r, in)`` float32, what A starts from, and what it stays where it is not trained.
        out_features: rows of the weight.
        scale: the factor s (``alpha / r`` of the literature), finite and positive.
        train_a: whether A is trained besides B.

    Raises:
        FedftError: FEDFT-2101 (shape, dtype, value), FEDFT-2104 (rank).

    """

    a: Tensor
    out_features: int
    scale: float
    train_a: bool

    def __post_init__(self) -> None:
        check_matrix("A", self.a)
        own = self.a.detach().cpu().clone(memory_format=torch.contiguous_format)
        object.__setattr__(self, "a", own)
        check_sizes(self.rank, self.shape, self.scale)

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the weight."""
        return self.out_features, self.a.shape[1]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the trained factors."""
        return (LORA_A, LORA_B) if self.train_a else (LORA_B,)

    def adapt(self, name: str, module: nn.Module) -> LoraLinear:
        """Put the two factors on a module."""
        return LoraLinear(module, self.a, scale=self.scale, train_a=self.train_a)

    def base_values(self) -> dict[str, Tensor]:
        """Return B = 0, beside the A of the start."""
        values = {LORA_A: self.a.clone(), LORA_B: torch.zeros(self.out_features, self.rank)}
        return {part: values[part] for part in self.parts}

    def change(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return ``scale * B A``, ``(out, in)`` float64 on the CPU."""
        a, b = values.get(LORA_A, self.a), values[LORA_B]
        return self.scale * (b.detach().cpu().double() @ a.detach().cpu().double())

    def factors(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return A and ``scale * B``."""
        return values.get(LORA_A, self.a), self.scale * values[LORA_B]


class LoraFrameSet(LayerFrames[LoraFrame]):
    """The LoRA frames of a run, encoded as safetensors."""

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file."""
        tensors: dict[str, Tensor] = {}
        for name, frame in self.items():
            tensors[f"{name}.a"] = frame.a
            tensors[f"{name}.out_features"] = torch.tensor([frame.out_features], dtype=torch.int64)
            tensors[f"{name}.scale"] = torch.tensor([frame.scale], dtype=torch.float64)
            tensors[f"{name}.train_a"] = torch.tensor([frame.train_a], dtype=torch.uint8)
        return bytes(safetensors.torch.save(tensors, metadata={"format": _FORMAT}))

    @classmethod
    def from_bytes(cls, data: bytes) -> LoraFrameSet:
        """Decode what ``to_bytes`` wrote; anything else, from whoever, is refused.

        Raises:
            FedftError: FEDFT-2109 (not such a file), and what ``LoraFrame`` raises.

        """
        frames = cls({name: _frame_of(name, parts) for name, parts in read_tensors(data).items()})
        require_canonical(frames.to_bytes(), data, _FORMAT)
        return frames


def build_lora_frames(
    model: nn.Module, targets: Sequence[str], *, rank: int, scale: float, seed: int, train_a: bool
) -> LoraFrameSet:
    """Draw A of every target; no weight is read.

    Raises:
        FedftError: FEDFT-2101 (scale), FEDFT-2104 (rank), FEDFT-2110 (a target cannot be adapted).

    """
    frames = {}
    for name in targets:
        out_features, in_features = frozen.shape_of(model.get_submodule(name))
        if rank > min(out_features, in_features):
            raise FedftError(
                Code.RANK_OUT_OF_RANGE, f"rank {rank} does not fit {name} of ({out_features}, {in_features})"
            )
        a = kaiming_uniform(rank, in_features, f"fedft/lora-a/1/{seed}/{name}")
        frames[name] = LoraFrame(a, out_features, scale, train_a)
    return LoraFrameSet(frames)


def kaiming_uniform(rank: int, in_features: int, key: str) -> Tensor:
    """Return (r, in) float32, uniform on ``±1/√in`` as PEFT draws A, and a function of ``key`` alone.

    The numbers are 24 bits of SHAKE-256 each, scaled in float64 and rounded once: every machine gets the same
    bits, whatever its library's generators do.
    """
    count = rank * in_features
    stream = np.frombuffer(hashlib.shake_256(key.encode()).digest(4 * count), "<u4", count)
    centred = 2.0 * (stream >> 8).astype(np.float64) + 1.0 - 2.0**24
    values = centred * 2.0**-24 * (1.0 / math.sqrt(in_features))
    return torch.from_numpy(values.astype(np.float32).reshape(rank, in_features))


def _frame_of(name: str, parts: Mapping[str, Tensor]) -> LoraFrame:
    if tuple(sorted(parts)) != _PARTS:
        raise FedftError(
            Code.FRAME_ENCODING_INVALID, f"frame {name!r}: has parts {sorted(parts)}, not {list(_PARTS)}"
        )
    out = parts["out_features"]
    if (out.dtype, tuple(out.shape)) != (torch.int64, (1,)):
        raise FedftError(
            Code.FRAME_ENCODING_INVALID, f"frame {name!r}: out_features is {out.dtype} {tuple(out.shape)}"
        )
    scale = read_scale(name, parts["scale"])
    return LoraFrame(parts["a"], int(out), scale, read_flag(name, "train_a", parts["train_a"]))
