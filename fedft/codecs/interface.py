"""What a codec offers, what it needs, and where decoded values go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.manifest import Manifest
from fedft.codecs.spec import NAMED, CodecSpec, NamedParams, Shard
from fedft.options import NoOptions, Options
from fedft.tensors import Arrays

Floats = NDArray[np.float32] | NDArray[np.float64]


class Domain(Enum):
    """The coordinates in which decoded values are summed."""

    PLAIN = "plain"
    ROTATED = "rotated"


@dataclass(frozen=True)
class CodecContext:
    """What a codec needs beside the tensors.

    Args:
        seed: shared by the round; every client and the server rotate with it.
        generator: the client's own randomness for stochastic rounding; encoding only.
        error_feedback: the caller keeps a residual, so the codec must be a contraction.

    """

    seed: bytes = b""
    generator: np.random.Generator | None = None
    error_feedback: bool = False


class Sink(Protocol):
    """Takes values at positions of a flat vector; positions are touched at most once per contribution."""

    def add_dense(self, start: int, values: Floats) -> None:
        """Add a run of values from ``start`` on."""

    def add_sparse(self, indices: NDArray[np.int64], values: Floats) -> None:
        """Add values at strictly increasing positions."""


class Decoded(Protocol):
    """One shard after every check: nothing that it does can fail any more."""

    @property
    def domain(self) -> Domain:
        """The coordinates of what ``add_into`` gives."""

    @property
    def peak(self) -> float:
        """Largest magnitude of what ``add_into`` gives."""

    @property
    def squared_norm(self) -> float:
        """Sum of squares of the coded values."""

    def add_into(self, sink: Sink) -> None:
        """Give the values to a sink that covers the whole manifest in this domain."""

    def write_into(self, flat: NDArray[np.float32]) -> None:
        """Write the values in the plain domain into the manifest's flat vector."""


@runtime_checkable
class Codec(Protocol):
    """Turns named float32 arrays into shards and checked shards into values.

    What is registered under a name is an instance; ``configured`` makes one with other options of it.
    """

    @property
    def options(self) -> type[Options]:
        """The schema of its options, which are keys of the configuration's section."""

    def configured(self, options: Options) -> Codec:
        """Return this codec with options, an instance of ``options``."""

    @property
    def name(self) -> str:
        """As in a configuration."""

    @property
    def id(self) -> int:
        """On the wire; never reused."""

    @property
    def version(self) -> int:
        """Of the bytes."""

    @property
    def needs_state(self) -> bool:
        """Without error feedback kept by the client it loses much of what is learned."""

    @property
    def integer_grid(self) -> bool:
        """Values are small integers times a factor."""

    @property
    def spec(self) -> CodecSpec:
        """What travels with each shard."""

    @property
    def bits_per_parameter(self) -> float:
        """Expected size on Gaussian input, without headers and scales."""

    def encode(self, tensors: Arrays, manifest: Manifest, context: CodecContext) -> list[Shard]:
        """Code a state that fits the manifest.

        Raises:
            FedftError: FEDFT-4015 when it does not fit, FEDFT-4016 on NaN or infinity.

        """

    def decode_shard(self, shard: Shard, manifest: Manifest, context: CodecContext) -> Decoded:
        """Check a shard from anyone against the receiver's manifest, allocating no more than that says.

        Raises:
            FedftError: FEDFT-4012 (tensors), FEDFT-4013 (blob), FEDFT-4014 (scales or values).

        """


class Fixed:
    """Of a codec that cannot be configured."""

    options: ClassVar[type[Options]] = NoOptions

    def configured(self, options: Options) -> Self:
        """Return the codec itself."""
        return self


class Named:
    """Of a codec that travels under its registered name, with its options as JSON; see ``CodecSpec``."""

    id: ClassVar[int] = NAMED
    name: ClassVar[str]
    version: ClassVar[int] = 1

    def option_values(self) -> Options:
        """Return the options that this instance was made with."""
        return NoOptions()

    @property
    def spec(self) -> CodecSpec:
        """What travels with each shard."""
        return CodecSpec(
            self.id, self.version, NamedParams(self.name, self.option_values().model_dump_json())
        )
