"""What a format of quantised weights offers, and what one weight in it can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fedft.options import NoOptions, Options


class StoredWeight(ABC):
    """A frozen matrix in few bits; nothing changes what is stored.

    Attributes:
        shape: of the matrix, (out, in).

    """

    shape: tuple[int, int]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the parts lie."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that the parts occupy; what all weights share is not counted."""

    @abstractmethod
    def workspace(self, dtype: torch.dtype) -> int:
        """Return bytes of the buffer, one for all layers, that arithmetic in this dtype takes."""

    @abstractmethod
    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """Return the matrix, ``(out, in)``, in a fresh tensor."""

    @abstractmethod
    def matmul(self, x: Tensor, *, transposed: bool, bias: Tensor | None = None) -> Tensor:
        """Return ``x Wᵀ + bias`` (``transposed``) or ``x W``, in the dtype of x, differentiable in x.

        Nothing but the weight itself may be kept for backward.
        """

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the same weight on a device."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the tensors to store by what follows ``weight`` in their name; ``""`` is the main one."""


class QuantFormat(ABC):
    """A way to store the frozen weights of a model's body in few bits.

    Attributes:
        name: in the configuration.
        title: for people, as in "linear layers in NF4".
        marker: the part of ``StoredWeight.state`` by which files are known to hold this format.
        options: the schema of further keys of the configuration's section.

    """

    name: ClassVar[str]
    title: ClassVar[str]
    marker: ClassVar[str]
    options: ClassVar[type[Options]] = NoOptions

    @abstractmethod
    def quantise(self, weight: Tensor) -> StoredWeight:
        """Quantise a float matrix, ``(out, in)``; equal matrices give equal bits on every machine.

        Raises:
            FedftError: FEDFT-9010 (a value is not finite, or no float matrix).

        """

    @abstractmethod
    def empty(self, shape: tuple[int, int]) -> StoredWeight:
        """Return a weight of this size and no content, to plan memory with."""

    @abstractmethod
    def read(self, state: Mapping[str, Tensor]) -> StoredWeight:
        """Read what ``StoredWeight.state`` gave, from whoever (FEDFT-9011)."""

    def describe(self, weights: Sequence[StoredWeight], dense: Sequence[str], dtype: str) -> dict[str, Any]:
        """Return the ``quantization_config`` of the model's config.json, by which ``reads`` knows it.

        Args:
            weights: all that are stored.
            dense: names of the linear modules that are not quantised.
            dtype: of the arithmetic.

        """
        return {"quant_method": "fedft", "format": self.name}

    def reads(self, described: Mapping[str, Any]) -> bool:
        """Whether files with this ``quantization_config`` are in this format."""
        return described.get("quant_method") == "fedft" and described.get("format") == self.name
