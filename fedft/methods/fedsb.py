"""Fed-SB (arXiv 2502.15436): square matrices between frozen, orthonormal frames; averaging them is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fedft.errors import Code, FedftError
from fedft.methods.interface import FrameFacts, Method

if TYPE_CHECKING:
    from torch import nn

    from fedft.adapters import FrameSet, SampleGradients
    from fedft.config import RunConfig


class FedSB(Method):
    """Trains R in ``y = W x + s B R A x``: a client sends r² numbers, and ``B (Σ pᵢ Rᵢ) A = Σ pᵢ B Rᵢ A``."""

    name = "fedsb"
    exact = True

    def frame_facts(self, config: RunConfig) -> FrameFacts:
        """Say what the run's initialiser declares; a dp-sketch frame is made of the clients' sketches."""
        from fedft.adapters.initialisers import DP_SKETCH, get_initialiser

        name = config.adapter.initialiser
        if name == DP_SKETCH:
            return FrameFacts(name, reproducible=False, reads_data=True)
        made = get_initialiser(name)
        return FrameFacts(name, made.reproducible, made.reads_data)

    def build_frames(
        self,
        model: nn.Module,
        targets: Sequence[str],
        config: RunConfig,
        gradients: Callable[[], SampleGradients],
    ) -> FrameSet:
        """Make A, B and R0 of every target with the run's initialiser."""
        from fedft.adapters import build_frames, get_initialiser
        from fedft.adapters.initialisers import DP_SKETCH

        adapter = config.adapter
        if adapter.initialiser == DP_SKETCH:
            raise FedftError(
                Code.INITIALISER_INPUT_MISSING,
                "a dp-sketch frame comes from the clients' sketches alone",
                hint="choose another adapter.initialiser where there are no clients",
            )
        needs_gradients = get_initialiser(adapter.initialiser).needs == "gradients"
        return build_frames(
            model,
            targets,
            initialiser=adapter.initialiser,
            rank=adapter.rank,
            scale=adapter.scale,
            seed=config.seed,
            gradients=gradients() if needs_gradients else None,
            eta=adapter.eta,
        )

    def read_frames(self, data: bytes) -> FrameSet:
        """Decode a set of square frames."""
        from fedft.adapters import FrameSet

        return FrameSet.from_bytes(data)

    def trained_elements(self, shape: tuple[int, int], rank: int) -> int:
        """Return r², whatever the shape."""
        return rank**2


FEDSB = FedSB()
