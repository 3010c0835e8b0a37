"""Fed-SB (arXiv 2502.15436): square matrices between frozen, orthonormal frames; averaging them is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fedft.methods.interface import FrameFacts, Method
from fedft.registries import FRAMES

if TYPE_CHECKING:
    from torch import nn

    from fedft.adapters import AdaptedLinear, FrameSet, SampleGradients
    from fedft.config import RunConfig


class FedSB(Method):
    """Trains R in ``y = W x + s B R A x``: a client sends r² numbers, and ``B (Σ pᵢ Rᵢ) A = Σ pᵢ B Rᵢ A``."""

    name = "fedsb"
    exact = True

    def frame_facts(self, config: RunConfig) -> FrameFacts:
        """Say what the run's initialiser declares."""
        made = FRAMES.get(config.adapter.initialiser)
        return FrameFacts(
            made.name,
            reproducible=made.reproducible,
            reads_data=made.reads_data,
            needs=made.needs,
            changes_base=made.changes_base,
            from_sketches=made.from_sketches,
        )

    def build_frames(
        self,
        model: nn.Module,
        targets: Sequence[str],
        config: RunConfig,
        gradients: Callable[[], SampleGradients],
    ) -> FrameSet:
        """Make A, B and R0 of every target with the run's initialiser."""
        from fedft.adapters import build_frames

        adapter = config.adapter
        needs_gradients = FRAMES.get(adapter.initialiser).needs == "gradients"
        return build_frames(
            model,
            targets,
            initialiser=adapter.initialiser,
            rank=adapter.rank,
            scale=adapter.scale,
            seed=config.seed,
            gradients=gradients() if needs_gradients else None,
            eta=adapter.eta,
            options=adapter.options,
        )

    def read_frames(self, data: bytes) -> FrameSet:
        """Decode a set of square frames."""
        from fedft.adapters import FrameSet

        return FrameSet.from_bytes(data)

    def trained_elements(self, shape: tuple[int, int], rank: int) -> int:
        """Return r², whatever the shape."""
        return rank**2

    def planned_layer(self, module: nn.Module, rank: int) -> AdaptedLinear:
        """Put a square adapter without values on a module."""
        from fedft.adapters import AdaptedLinear
        from fedft.adapters.frozen import shape_of
        from fedft.adapters.planned import SquareSizes

        return AdaptedLinear(module, SquareSizes(shape_of(module), rank))


FEDSB = FedSB()
