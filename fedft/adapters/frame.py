"""Square frames: the frozen A and B around a trained R, and the ordered set of them that a run shares."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

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
from fedft.adapters.linear import AdaptedLinear
from fedft.errors import Code, FedftError
from fedft.quant.dense import is_plain

ORTHONORMALITY_TOLERANCE = 1e-6
_FORMAT = "fedft-frames/1"
_PARTS = ("a", "b", "r0", "residual", "scale")


@dataclass(frozen=True, eq=False)
class Frame:
    """The frozen part of one adapted layer, ``y = W x + scale * B R A x``.

    Args:
        b: ``(out, r)`` float32, orthonormal columns.
        a: ``(r, in)`` float32, orthonormal rows.
        r0: ``(r, r)`` float32, the value that R starts from.
        scale: the factor s, finite and positive.
        residual: whether the base weight is replaced by ``W - scale * B R0 A``, so that the layer's
            function at ``R = R0`` is the base's (PiSSA). The residual itself is derived from W where the
            frame is attached; it is neither stored nor shipped.

    Raises:
        FedftError: FEDFT-2101 (shape, dtype, value), FEDFT-2102 (not orthonormal to 1e-6).

    """

    b: Tensor
    a: Tensor
    r0: Tensor
    scale: float
    residual: bool = False

    def __post_init__(self) -> None:
        for part in ("b", "a", "r0"):
            check_matrix(part, getattr(self, part))
            # A copy of its own: nothing outside can change a frame, and no two parts share memory.
            own = getattr(self, part).detach().cpu().clone(memory_format=torch.contiguous_format)
            object.__setattr__(self, part, own)
        rank = self.r0.shape[0]
        shapes = tuple(tuple(t.shape) for t in (self.b, self.r0, self.a))
        if shapes != ((self.out_features, rank), (rank, rank), (rank, self.in_features)):
            raise FedftError(
                Code.FRAME_MALFORMED, f"frame: B, R0, A have shapes {shapes}, not (out,r), (r,r), (r,in)"
            )
        check_sizes(rank, self.shape, self.scale)
        _check_orthonormal("B", self.b.T)
        _check_orthonormal("A", self.a)

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.b.shape[0]

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return self.a.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the weight that the frame belongs to."""
        return self.out_features, self.in_features

    @property
    def rank(self) -> int:
        """Rows and columns of R."""
        return self.r0.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of B, A and R0."""
        return 4 * (self.b.numel() + self.a.numel() + self.r0.numel())

    @property
    def parts(self) -> tuple[str, ...]:
        """R is the only trained tensor and goes by the name of its module."""
        return ("",)

    def adapt(self, name: str, module: nn.Module) -> AdaptedLinear:
        """Put R between A and B on a module; a residual frame needs one with a plain weight (FEDFT-2110)."""
        if not self.residual:
            return AdaptedLinear(module, self)
        if not is_plain(module):
            raise FedftError(
                Code.MODULE_NOT_ADAPTABLE,
                f"{name}: a residual frame changes the weight, which {type(module).__name__} cannot take",
                hint="use lora-sb, lora-xs or random on a quantised base",
            )
        weight = frozen.dense_weight(module)
        residual = weight.double() - self.delta(self.r0).to(weight.device)
        return AdaptedLinear(frozen.with_weight(module, residual.to(weight.dtype)), self)

    def base_values(self) -> dict[str, Tensor]:
        """Return R = 0, or R0 where the residual base lacks ``scale * B R0 A``."""
        return {"": self.r0.clone() if self.residual else torch.zeros_like(self.r0)}

    def delta(self, r: Tensor) -> Tensor:
        """Return ``scale * B r A``, ``(out, in)`` float64 on the CPU."""
        return self.scale * (self.b.double() @ r.detach().cpu().double() @ self.a.double())

    def change(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the change of the module's own weight, ``(out, in)`` float64 on the CPU."""
        return self.delta(self._moved(values))

    def factors(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return A and ``scale * B R``; with a residual base ``scale * B (R - R0)``."""
        return self.a, (self.scale * self.b.double() @ self._moved(values).double()).float()

    def _moved(self, values: Mapping[str, Tensor]) -> Tensor:
        r = values[""]
        return r - self.r0 if self.residual else r


class FrameSet(LayerFrames[Frame]):
    """The square frames of a run, encoded as safetensors."""

    @property
    def nbytes(self) -> int:
        """Bytes of all B, A and R0."""
        return sum(frame.nbytes for frame in self.values())

    @property
    def num_parameters(self) -> int:
        """Trainable parameters: the sum of r*r."""
        return sum(frame.rank**2 for frame in self.values())

    def initial_state(self) -> dict[str, Tensor]:
        """Return a copy of every R0, ``(r, r)`` float32."""
        return {name: frame.r0.clone() for name, frame in self.items()}

    def digest(self) -> str:
        """Return the SHA-256, in hex, of names, shapes, scales and the little-endian bytes of B, A, R0."""
        sha = hashlib.sha256(_FORMAT.encode())
        for name, frame in self.items():
            encoded = name.encode()
            sha.update(struct.pack("<I", len(encoded)) + encoded)
            sha.update(struct.pack("<QQQ", frame.out_features, frame.rank, frame.in_features))
            sha.update(struct.pack("<d?", frame.scale, frame.residual))
            for matrix in (frame.b, frame.a, frame.r0):
                sha.update(matrix.numpy().astype("<f4", copy=False).tobytes())
        return sha.hexdigest()

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file; equal frame sets give equal bytes."""
        tensors: dict[str, Tensor] = {}
        for name, frame in self.items():
            tensors |= {f"{name}.b": frame.b, f"{name}.a": frame.a, f"{name}.r0": frame.r0}
            tensors[f"{name}.scale"] = torch.tensor([frame.scale], dtype=torch.float64)
            tensors[f"{name}.residual"] = torch.tensor([frame.residual], dtype=torch.uint8)
        return bytes(safetensors.torch.save(tensors, metadata={"format": _FORMAT}))

    @classmethod
    def from_bytes(cls, data: bytes) -> FrameSet:
        """Decode what ``to_bytes`` wrote; anything else, from whoever, is refused.

        Raises:
            FedftError: FEDFT-2109 (not such a file), and what ``Frame`` raises.

        """
        frames = cls({name: _frame_of(name, parts) for name, parts in read_tensors(data).items()})
        require_canonical(frames.to_bytes(), data, _FORMAT)
        return frames


def _check_orthonormal(part: str, rows: Tensor) -> None:
    wide = rows.double()
    error = float((wide @ wide.T - torch.eye(len(wide), dtype=torch.float64)).abs().max())
    if error > ORTHONORMALITY_TOLERANCE:
        raise FedftError(
            Code.FRAME_NOT_ORTHONORMAL,
            f"frame: {part} is off orthonormal by {error:.2e}, allowed {ORTHONORMALITY_TOLERANCE}",
        )


def _frame_of(name: str, parts: Mapping[str, Tensor]) -> Frame:
    if tuple(sorted(parts)) != _PARTS:
        raise FedftError(
            Code.FRAME_ENCODING_INVALID, f"frame {name!r}: has parts {sorted(parts)}, not {list(_PARTS)}"
        )
    scale = read_scale(name, parts["scale"])
    return Frame(parts["b"], parts["a"], parts["r0"], scale, read_flag(name, "residual", parts["residual"]))
