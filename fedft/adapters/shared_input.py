"""Projections that read the same input (query, key and value; gate and up) read it once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedft.adapters.linear import AdaptedLinear
from fedft.quant.dense import is_plain

_TOGETHER = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
)


@dataclass
class _Seen:
    """An input, what all layers make of it, and the layers that have not asked yet."""

    x: weakref.ref[Tensor]
    version: int
    u: tuple[Tensor, ...]
    left: set[int]


class SharedInput:
    """Computes ``A x`` of several layers in one product when the first of them sees an input.

    The others take their part if they are called with the very same tensor, unchanged since; a layer that
    is called with another one computes its own.

    Args:
        layers: with the same number of input features, dtype and device; each A becomes a part of one
            ``(sum of ranks, in)`` matrix.

    """

    def __init__(self, layers: Sequence[AdaptedLinear]) -> None:
        self._ranks = [layer.A.shape[0] for layer in layers]
        self._stacked = torch.cat([layer.A for layer in layers])
        self._parts = _split(self._stacked, self._ranks, dim=0)
        self._seen: _Seen | None = None
        for slot, layer in enumerate(layers):
            layer.A, layer.shared, layer.slot = self._parts[slot], self, slot

    def project(self, layer: AdaptedLinear, x: Tensor) -> Tensor | None:
        """Return the layer's ``u = A x``, ``(n, r)``; None when it is to compute it alone.

        That is so in a trace, in inference mode, and when the layer's A has been moved.
        """
        slot = layer.slot
        if torch.compiler.is_compiling() or x.is_inference():
            return None
        if layer.A.data_ptr() != self._parts[slot].data_ptr():
            return None
        seen = self._seen
        if seen is None or seen.x() is not x or seen.version != x._version or slot not in seen.left:
            with torch.no_grad():
                u = x.reshape(-1, x.shape[-1]) @ self._stacked.T
            parts = _split(u, self._ranks, dim=1)
            seen = _Seen(weakref.ref(x), x._version, parts, set(range(len(parts))))
        seen.left.discard(slot)
        self._seen = seen if seen.left else None
        return seen.u[slot]


def _split(tensor: Tensor, sizes: list[int], dim: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = torch.split(tensor, sizes, dim)
    return parts


def share_inputs(layers: Mapping[str, AdaptedLinear]) -> None:
    """Let the layers on quantised bases that read the same input in the known architectures read it once."""
    for group in _groups(layers):
        SharedInput(group)


def _groups(layers: Mapping[str, AdaptedLinear]) -> Iterator[list[AdaptedLinear]]:
    parents = dict.fromkeys(name.rpartition(".")[0] for name in layers)
    for parent in parents:
        for names in _TOGETHER:
            found = [layers[key] for name in names if (key := f"{parent}.{name}".lstrip(".")) in layers]
            found = [layer for layer in found if not is_plain(layer.base)]
            alike = {(layer.in_features, layer.A.dtype, layer.A.device) for layer in found}
            if len(found) > 1 and len(alike) == 1:
                yield found
