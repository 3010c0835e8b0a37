"""A frozen weight in NF4, in memory and in files, and its exchange with bitsandbytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from fedft.errors import Code, FedftError
from fedft.quant import ops
from fedft.quant.codebook import BLOCK, NESTED_BLOCK, levels, nested_map
from fedft.quant.interface import StoredWeight

STATE = "quant_state.bitsandbytes__nf4"
"""The key of the facts that are no tensors, as bitsandbytes names it in files."""


@dataclass(frozen=True, eq=False)
class NF4Weight(StoredWeight):
    """A matrix in 4-bit NormalFloat: 4.127 bits a weight, bit-compatible with bitsandbytes.

    Blocks of 64 weights along the flat (row-major) order share a scale; the scales are 8-bit numbers in
    blocks of 256 (QLoRA, arXiv 2305.14314). Made by ``quantise``, ``from_state`` or ``from_bitsandbytes``.

    Attributes:
        packed: ``(ceil(n/2),)`` uint8, the first weight of a pair in the high four bits.
        absmax: ``(ceil(n/64),)`` uint8 codes; float32 scales when ``absmax2`` is None.
        absmax2: ``(ceil(n/64/256),)`` float32.
        code: ``(256,)`` float32, what the 8-bit codes mean; None with ``absmax2``.
        offset: added to every scale; a float32 value.
        shape: of the matrix, (out, in).
        dtype: of the matrix that was quantised.

    """

    packed: Tensor
    absmax: Tensor
    absmax2: Tensor | None
    code: Tensor | None
    offset: float
    shape: tuple[int, int]
    dtype: torch.dtype

    @classmethod
    def quantise(cls, weight: Tensor) -> NF4Weight:
        """Quantise a float matrix, ``(out, in)``, from its bfloat16 values.

        Raises:
            FedftError: FEDFT-9010 (a value is not finite, or no float matrix).

        """
        if weight.dim() != 2 or not weight.is_floating_point():
            raise FedftError(
                Code.WEIGHT_NOT_QUANTISABLE, f"{weight.dtype} {tuple(weight.shape)} is no matrix of floats"
            )
        # From bfloat16 whatever the checkpoint's dtype: one base, one digest, for every client.
        packed, absmax = ops.quantise(weight.detach().to(torch.bfloat16))
        code = nested_map(weight.device)
        q8, absmax2, offset = ops.nest(absmax, code)
        shape = (weight.shape[0], weight.shape[1])
        return cls(packed, q8, absmax2, code, float(offset), shape, torch.bfloat16)

    @property
    def device(self) -> torch.device:
        """Where the parts lie."""
        return self.packed.device

    @property
    def nested(self) -> ops.Nested | None:
        """(absmax2, code, offset), or None when the scales are float32."""
        if self.absmax2 is None or self.code is None:
            return None
        return self.absmax2, self.code, self.offset

    @property
    def nbytes(self) -> int:
        """Bytes that the parts occupy; the shared table of 256 values is not counted."""
        parts = [self.packed, self.absmax] + ([self.absmax2] if self.absmax2 is not None else [])
        return sum(part.nbytes for part in parts)

    def workspace(self, dtype: torch.dtype) -> int:
        """Return the bytes of the dense matrix, for which all layers share one buffer."""
        return self.shape[0] * self.shape[1] * dtype.itemsize

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """Return the matrix, ``(out, in)``, in a fresh tensor."""
        parts = (self.packed, self.absmax, self.absmax2, self.code, self.offset)
        return ops.dequantise(*parts, list(self.shape), dtype)  # type: ignore[no-any-return]

    def matmul(self, x: Tensor, *, transposed: bool, bias: Tensor | None = None) -> Tensor:
        """Return ``x Wᵀ + bias`` (``transposed``) or ``x W``, in the dtype of x, differentiable in x."""
        parts = (self.packed, self.absmax, self.absmax2, self.code, self.offset)
        return ops.matmul(x, *parts, *self.shape, bias, transposed)  # type: ignore[no-any-return]

    def to(self, device: torch.device | str) -> Self:
        """Return the same weight on a device."""
        device = torch.device(device)
        return replace(
            self,
            packed=self.packed.to(device),
            absmax=self.absmax.to(device),
            absmax2=None if self.absmax2 is None else self.absmax2.to(device),
            code=None if self.code is None else self.code.to(device),
        )

    def digest(self) -> str:
        """Return the SHA-256 (hex) over shape and parts: equal exactly when the stored weight is."""
        digest = hashlib.sha256(f"fedft nf4 1\n{self.shape[0]},{self.shape[1]}\n".encode())
        for name, part in sorted(self.state().items()):
            data = part.contiguous().view(-1).view(torch.uint8).cpu().numpy().tobytes()
            digest.update(f"{name} {part.dtype} {part.numel()}\n".encode() + data)
        return digest.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """Return the tensors to store, under the names that bitsandbytes puts after ``weight``.

        ``""`` is the packed weight, ``(ceil(n/2), 1)``; ``absmax``, ``quant_map``, ``nested_absmax``,
        ``nested_quant_map``; ``quant_state.bitsandbytes__nf4`` is JSON as bytes.
        """
        facts: dict[str, Any] = {
            "quant_type": "nf4",
            "blocksize": BLOCK,
            "dtype": str(self.dtype).removeprefix("torch."),
            "shape": list(self.shape),
        }
        state = {"": self.packed.view(-1, 1), "absmax": self.absmax, "quant_map": levels(self.device)}
        if self.nested is not None:
            absmax2, code, offset = self.nested
            state |= {"nested_absmax": absmax2, "nested_quant_map": code}
            facts |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": offset}
        state[STATE] = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> NF4Weight:
        """Read what ``state`` gave, or what bitsandbytes wrote with or without double quantisation.

        Raises:
            FedftError: FEDFT-9011 when a part is missing, damaged, or of another format.

        """
        try:
            facts = json.loads(bytes(state[STATE].cpu().numpy().tobytes()))
            shape, dtype = [int(n) for n in facts["shape"]], getattr(torch, str(facts["dtype"]))
            nested = "nested_absmax" in state
            offset = float(facts["nested_offset"]) if nested else 0.0
            sizes = (facts["quant_type"], facts["blocksize"], facts.get("nested_blocksize", NESTED_BLOCK))
            packed, absmax, table = state[""].reshape(-1), state["absmax"], state["quant_map"]
            absmax2 = state["nested_absmax"] if nested else None
            code = state["nested_quant_map"] if nested else None
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise FedftError(Code.QUANTISED_WEIGHT_INVALID, f"not an NF4 weight: {error!r}") from error
        if sizes != ("nf4", BLOCK, NESTED_BLOCK) or len(shape) != 2 or min(shape) < 0:
            raise FedftError(
                Code.QUANTISED_WEIGHT_INVALID,
                f"not an NF4 matrix in blocks of 64 and 256: {sizes}, shape {shape}",
            )
        if not torch.equal(table.cpu().float(), levels(torch.device("cpu"))):
            raise FedftError(Code.QUANTISED_WEIGHT_INVALID, "the stored levels are not those of NF4")
        weight = cls(packed, absmax, absmax2, _shared(code), offset, (shape[0], shape[1]), dtype)
        weight.check()
        return weight

    def check(self) -> None:
        """Raise FEDFT-9011 unless the parts fit the shape and every scale is finite."""
        ops.check_parts(self.packed, self.absmax, self.nested, self.shape[0] * self.shape[1])
        numbers = [self.absmax] if self.nested is None else [self.nested[0], self.nested[1]]
        finite = all(bool(torch.isfinite(part).all()) for part in numbers)
        if not (finite and math.isfinite(self.offset)):
            raise FedftError(Code.QUANTISED_WEIGHT_INVALID, "a scale of an NF4 weight is not finite")

    @classmethod
    def from_bitsandbytes(cls, packed: Tensor, state: Any) -> NF4Weight:
        """Take over a tensor that ``bitsandbytes.functional.quantize_4bit`` made, and its QuantState."""
        return cls.from_state({"": packed} | state.as_dict(packed=True))

    def to_bitsandbytes(self) -> tuple[Tensor, Any]:
        """Return the packed weight and a bitsandbytes ``QuantState``."""
        from bitsandbytes.functional import QuantState

        state = self.state()
        packed = state.pop("")
        return packed, QuantState.from_dict({f"weight.{k}": v for k, v in state.items()}, device=self.device)


def _shared(code: Tensor | None) -> Tensor | None:
    """Return the process's one copy of the usual table, if that is what it is."""
    if code is None:
        return None
    usual = nested_map(code.device)
    return usual if code.dtype == usual.dtype and torch.equal(code, usual) else code.contiguous()
