"""NF4 as a format: weights, and files that bitsandbytes and transformers open too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedft.quant.codebook import BLOCK, NESTED_BLOCK
from fedft.quant.interface import QuantFormat, StoredWeight
from fedft.quant.weight import STATE, NF4Weight


class NormalFloat4(QuantFormat):
    """4-bit NormalFloat in blocks of 64, scales in 8 bits (QLoRA, arXiv 2305.14314)."""

    name = "nf4"
    title = "NF4"
    marker = STATE

    def quantise(self, weight: Tensor) -> NF4Weight:
        """Quantise from the matrix's bfloat16 values."""
        return NF4Weight.quantise(weight)

    def empty(self, shape: tuple[int, int]) -> NF4Weight:
        """Return a weight of this size."""
        count = shape[0] * shape[1]
        blocks = -(-count // BLOCK)
        return NF4Weight(
            packed=torch.empty((count + 1) // 2, dtype=torch.uint8),
            absmax=torch.empty(blocks, dtype=torch.uint8),
            absmax2=torch.empty(-(-blocks // NESTED_BLOCK)),
            code=torch.empty(256),
            offset=0.0,
            shape=shape,
            dtype=torch.bfloat16,
        )

    def read(self, state: Mapping[str, Tensor]) -> NF4Weight:
        """Read parts under the names that bitsandbytes gives them."""
        return NF4Weight.from_state(state)

    def describe(self, weights: Sequence[StoredWeight], dense: Sequence[str], dtype: str) -> dict[str, Any]:
        """Return what tells transformers to open the files with bitsandbytes."""
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": all(isinstance(w, NF4Weight) and w.nested for w in weights),
            "bnb_4bit_compute_dtype": dtype,
            "llm_int8_skip_modules": list(dense),
        }

    def reads(self, described: Mapping[str, Any]) -> bool:
        """Whether bitsandbytes stored NF4."""
        return bool(described.get("load_in_4bit")) and described.get("bnb_4bit_quant_type") == "nf4"


NF4 = NormalFloat4()
