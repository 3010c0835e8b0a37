"""A method of another package: only the diagonal of a square core is trained, ``y = W x + B diag(d) A x``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor, nn

from fedft.adapters import AdapterLayer, LayerFrames, SampleGradients, build_frames
from fedft.adapters.frame_file import read_tensors, require_canonical
from fedft.adapters.frozen import shape_of
from fedft.config import RunConfig
from fedft.methods import FrameFacts, Method


class DiagonalLinear(AdapterLayer):
    a: Tensor
    b: Tensor

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("a", a)
        self.register_buffer("b", b)
        self.d = nn.Parameter(torch.zeros(len(a)))

    def trainable(self) -> dict[str, nn.Parameter]:
        return {"d": self.d}

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        return y + (x @ self.a.T * self.d) @ self.b.T


@dataclass(frozen=True, eq=False)
class DiagonalFrame:
    a: Tensor
    b: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    @property
    def parts(self) -> tuple[str, ...]:
        return ("d",)

    def adapt(self, name: str, module: nn.Module) -> DiagonalLinear:
        return DiagonalLinear(module, self.a, self.b)

    def base_values(self) -> dict[str, Tensor]:
        return {"d": torch.zeros(len(self.a))}

    def change(self, values: Mapping[str, Tensor]) -> Tensor:
        return self.b.double() @ torch.diag(values["d"].double()) @ self.a.double()

    def factors(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.a, self.b * values["d"]


class DiagonalFrames(LayerFrames[DiagonalFrame]):
    def to_bytes(self) -> bytes:
        tensors = {f"{name}.{part}": getattr(frame, part) for name, frame in self.items() for part in "ab"}
        return bytes(safetensors.torch.save(tensors))


class Diagonal(Method):
    name = "diagonal"
    exact = True

    def frame_facts(self, config: RunConfig) -> FrameFacts:
        return FrameFacts("diagonal", reproducible=True, reads_data=False)

    def build_frames(
        self,
        model: nn.Module,
        targets: Sequence[str],
        config: RunConfig,
        gradients: Callable[[], SampleGradients],
    ) -> DiagonalFrames:
        rank = config.adapter.rank
        made = build_frames(model, targets, initialiser="random", rank=rank, seed=config.seed)
        return DiagonalFrames({name: DiagonalFrame(frame.a, frame.b) for name, frame in made.items()})

    def read_frames(self, data: bytes) -> DiagonalFrames:
        found = read_tensors(data)
        frames = DiagonalFrames(
            {name: DiagonalFrame(parts["a"], parts["b"]) for name, parts in found.items()}
        )
        require_canonical(frames.to_bytes(), data, "diagonal")
        return frames

    def trained_elements(self, shape: tuple[int, int], rank: int) -> int:
        return rank

    def planned_layer(self, module: nn.Module, rank: int) -> DiagonalLinear:
        rows, columns = shape_of(module)
        return DiagonalLinear(module, torch.empty(rank, columns), torch.empty(rows, rank))


DIAGONAL = Diagonal()
