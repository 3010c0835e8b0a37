"""Frozen weights in float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fedft.quant import QuantFormat, StoredWeight


@dataclass(frozen=True, eq=False)
class Float16Weight(StoredWeight):
    values: Tensor

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.values.shape[0], self.values.shape[1]

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def workspace(self, dtype: torch.dtype) -> int:
        return 0

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        return self.values.to(dtype)

    def matmul(self, x: Tensor, *, transposed: bool, bias: Tensor | None = None) -> Tensor:
        dense = self.dequantise(x.dtype)
        result = x @ (dense.T if transposed else dense)
        return result if bias is None else result + bias

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.values.to(device))

    def state(self) -> dict[str, Tensor]:
        return {"": self.values, Float16.marker: torch.ones(1)}


class Float16(QuantFormat):
    name = "float16"
    title = "float16"
    marker = "float16"

    def quantise(self, weight: Tensor) -> Float16Weight:
        return Float16Weight(weight.detach().to(torch.float16))

    def empty(self, shape: tuple[int, int]) -> Float16Weight:
        return Float16Weight(torch.empty(shape, dtype=torch.float16))

    def read(self, state: Mapping[str, Tensor]) -> Float16Weight:
        return Float16Weight(state[""])


FLOAT16 = Float16()
