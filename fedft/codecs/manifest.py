"""The ordered names and shapes of the tensors that a run exchanges, and digests over their values."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedft.errors import Code, FedftError
from fedft.tensors import Arrays


@dataclass(frozen=True)
class TensorSpec:
    """Name and shape of one tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Manifest:
    """The exchanged tensors in their canonical order; both ends build it and compare digests.

    Raises:
        FedftError: FEDFT-4015 when a name occurs twice, a tensor is empty, or there is none.

    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if not names or len(set(names)) != len(names):
            raise FedftError(Code.TENSOR_MISMATCH, f"a manifest needs distinct tensor names, got {names[:5]}")
        empty = [tensor.name for tensor in self.tensors if tensor.size < 1]
        if empty:
            raise FedftError(Code.TENSOR_MISMATCH, f"tensors without elements: {empty[:5]}")

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Manifest:
        """Build the manifest of torch tensors or numpy arrays, sorted by name."""
        return cls(tuple(TensorSpec(name, tuple(state[name].shape)) for name in sorted(state)))

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each tensor in the flat vector of all elements, and the total at the end."""
        sizes = [tensor.size for tensor in self.tensors]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

    @property
    def total_elements(self) -> int:
        """Number of elements of all tensors."""
        return int(self.offsets[-1])

    def digest(self) -> str:
        """SHA-256 (hex) over names and shapes in order."""
        parts = [b"fedft manifest v1\0", struct.pack("<I", len(self.tensors))]
        for tensor in self.tensors:
            name = tensor.name.encode()
            parts.append(struct.pack("<I", len(name)) + name)
            parts.append(struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def check(self, state: Arrays) -> None:
        """Compare names, shapes and dtype (float32) of a state with this manifest.

        Raises:
            FedftError: FEDFT-4015 naming the first tensor that differs.

        """
        wrong = {tensor.name for tensor in self.tensors} ^ set(state)
        if wrong:
            raise FedftError(
                Code.TENSOR_MISMATCH, f"tensor names differ from the manifest: {sorted(wrong)[:5]}"
            )
        for tensor in self.tensors:
            array = state[tensor.name]
            if array.shape != tensor.shape or array.dtype != np.float32:
                raise FedftError(
                    Code.TENSOR_MISMATCH,
                    f"{tensor.name} is {array.dtype}{list(array.shape)}, "
                    f"the manifest says float32{list(tensor.shape)}",
                )

    def flatten(self, state: Arrays) -> NDArray[np.float32]:
        """Concatenate a state into one flat float32 vector; raises FEDFT-4015 when it does not fit."""
        self.check(state)
        return np.concatenate([state[tensor.name].reshape(-1) for tensor in self.tensors])

    def unflatten(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Cut a flat vector of ``total_elements`` into named views of it."""
        pieces = np.split(flat, self.offsets[1:-1])
        return {
            spec.name: piece.reshape(spec.shape) for spec, piece in zip(self.tensors, pieces, strict=True)
        }


def as_float32(value: Any) -> NDArray[np.float32]:
    """Give a torch tensor (any device or float type) or an array as a float32 numpy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy()
    return np.asarray(value, dtype=np.float32)


def state_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the manifest's digest and every value as little-endian float32 in its order."""
    manifest = Manifest.of(state)
    digest = hashlib.sha256(b"fedft state v1\0" + bytes.fromhex(manifest.digest()))
    for tensor in manifest.tensors:
        values = np.ascontiguousarray(as_float32(state[tensor.name]), dtype="<f4")
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
