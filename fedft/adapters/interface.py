"""What an adapter is made of: the fixed part of one layer, the layer itself, and the set of a run's."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from fedft.errors import Code, FedftError


class AdapterLayer(nn.Module):
    """A linear module with an adapter on it; ``base`` is what it was.

    Every layer of an adapter derives from this class, by which a model that carries adapters is known.
    """

    base: nn.Module

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the trained tensors, float32, by the name of their part."""
        raise NotImplementedError


class LayerFrame(Protocol):
    """What is fixed of one adapted layer and the same everywhere, and what training starts from.

    The trained tensors are called *parts*; ``values`` maps their names to tensors. In a state the tensor of a
    part is called ``module.part``, or just as the module where the part's name is empty.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the weight that the frame belongs to."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the trained tensors."""

    def adapt(self, name: str, module: nn.Module) -> AdapterLayer:
        """Put the adapter on a frozen linear module, which is left as it is (FEDFT-2110)."""

    def base_values(self) -> dict[str, Tensor]:
        """Return values at which the adapted layer computes what the module did."""

    def change(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the change of the module's own weight, (out, in), float64 on the CPU."""

    def factors(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return A ``(r, in)`` and B ``(out, r)``, float32, whose product B A is the change."""


F = TypeVar("F", bound=LayerFrame)
V = TypeVar("V")


class LayerFrames(Mapping[str, F], ABC, Generic[F]):
    """The frames of a run by the name of their module, in the order of the names.

    Raises:
        FedftError: FEDFT-2101 when there is no frame or a name is empty.

    """

    def __init__(self, frames: Mapping[str, F]) -> None:
        if not frames or "" in frames:
            raise FedftError(
                Code.FRAME_MALFORMED, f"a frame set needs named frames, got names {sorted(frames)}"
            )
        self._frames = {name: frames[name] for name in sorted(frames)}

    def __getitem__(self, name: str) -> F:
        return self._frames[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Encode; equal frames give equal bytes."""

    def digest(self) -> str:
        """Return the SHA-256, in hex, that names these frames in a run."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def require_digest(self, expected: str) -> None:
        """Refuse to go on with frames other than the run's (FEDFT-2103)."""
        found = self.digest()
        if found != expected:
            raise FedftError(
                Code.FRAME_DIGEST_MISMATCH,
                f"frame digest mismatch: run expects {expected[:16]}…, this machine has {found[:16]}…",
                hint="the base model, the seed or the adapter's configuration differs",
            )

    def values_of(self, name: str, state: Mapping[str, V]) -> dict[str, V]:
        """Return one layer's trained tensors of a state by the name of their part."""
        return {part: state[tensor_name(name, part)] for part in self[name].parts}

    def base_state(self) -> dict[str, Tensor]:
        """Return the tensors at which the adapted model computes what the base does."""
        return {
            tensor_name(name, part): value
            for name, frame in self.items()
            for part, value in frame.base_values().items()
        }


Frames = LayerFrames[Any]
"""The frames of some adapter, whichever it is."""


def tensor_name(module: str, part: str) -> str:
    """Return the name in a state of a module's trained tensor."""
    return f"{module}.{part}" if part else module
