"""NF4 from its definition, in numpy, apart from anything in the package: decides who is right."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch

F32 = np.float32


def codebook() -> np.ndarray:
    """16 float32 levels: quantiles of N(0, 1) at evenly spaced probabilities, divided by the largest."""
    offset = 0.9677083
    inverse = NormalDist().inv_cdf
    positive = [inverse(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    negative = [-inverse(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    values = np.array(sorted([*positive, 0.0, *negative]))
    scaled: np.ndarray = values / values.max()
    return scaled.astype(F32)


def unpack(packed: np.ndarray, n: int) -> np.ndarray:
    """Codes in order: the first weight of a byte is in its high four bits."""
    return np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:n]


def scales(absmax: np.ndarray, nested: tuple[np.ndarray, np.ndarray, float] | None) -> np.ndarray:
    """Float32 scale of every block of 64."""
    if nested is None:
        return absmax
    absmax2, code, offset = nested
    second = np.repeat(absmax2, 256)[: len(absmax)]
    centred: np.ndarray = (code[absmax] * second).astype(F32)
    return (centred + F32(offset)).astype(F32)


def dequantise(packed: np.ndarray, scale: np.ndarray, n: int, levels: np.ndarray) -> np.ndarray:
    """Float32 values."""
    values: np.ndarray = levels[unpack(packed, n)] * np.repeat(scale, 64)[:n]
    return values.astype(F32)


def worst_choice(weights: np.ndarray, packed: np.ndarray, absmax: np.ndarray, levels: np.ndarray) -> float:
    """How much farther from its weight the worst chosen level is than the nearest one, in units of absmax."""
    n = len(weights)
    scaled = weights.astype(np.float64) / np.maximum(np.repeat(absmax, 64)[:n].astype(np.float64), 1e-38)
    distance = np.abs(scaled[:, None] - levels.astype(np.float64))
    chosen = distance[np.arange(n), unpack(packed, n)]
    return float((chosen - distance.min(axis=1)).max(initial=0.0))


def rounded(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(values).to(dtype)
