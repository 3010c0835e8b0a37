"""Methods that train LoRA's own factors: FedIT averages both, FFA-LoRA trains B alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from fedft.config.rules import Contradiction
from fedft.errors import Code, FedftError
from fedft.methods.interface import FrameFacts, Method
from fedft.registries import PRIVACY_MODELS

if TYPE_CHECKING:
    from torch import nn

    from fedft.adapters import SampleGradients
    from fedft.adapters.lora_frame import LoraFrameSet
    from fedft.adapters.lora_linear import LoraLinear
    from fedft.config import RunConfig


class LoraMethod(Method):
    """Trains factors of ``y = W x + s B A x`` from ``B = 0`` and an A that every machine draws from the seed.

    ``adapter.rank`` is r and ``adapter.scale`` is s; ``adapter.initialiser`` is not used.
    """

    train_a: ClassVar[bool]

    def frame_facts(self, config: RunConfig) -> FrameFacts:
        """Say that A is drawn from the seed alone."""
        return FrameFacts("kaiming", reproducible=True, reads_data=False)

    def build_frames(
        self,
        model: nn.Module,
        targets: Sequence[str],
        config: RunConfig,
        gradients: Callable[[], SampleGradients],
    ) -> LoraFrameSet:
        """Draw A of every target from the run's seed."""
        from fedft.adapters.lora_frame import build_lora_frames

        adapter = config.adapter
        return build_lora_frames(
            model,
            targets,
            rank=adapter.rank,
            scale=adapter.scale,
            seed=config.seed,
            train_a=self.train_a,
        )

    def read_frames(self, data: bytes) -> LoraFrameSet:
        """Decode a set of LoRA frames; those of the other LoRA method are refused too (FEDFT-2109)."""
        from fedft.adapters.lora_frame import LoraFrameSet

        frames = LoraFrameSet.from_bytes(data)
        if any(frame.train_a is not self.train_a for frame in frames.values()):
            raise FedftError(
                Code.FRAME_ENCODING_INVALID, f"frames: these are not frames of the method {self.name}"
            )
        return frames

    def trained_elements(self, shape: tuple[int, int], rank: int) -> int:
        """Return ``r · out`` for B, and ``r · in`` for A where it is trained."""
        rows, columns = shape
        return rank * (rows + columns) if self.train_a else rank * rows

    def planned_layer(self, module: nn.Module, rank: int) -> LoraLinear:
        """Put a LoRA layer without values on a module."""
        import torch

        from fedft.adapters.frozen import shape_of
        from fedft.adapters.lora_linear import LoraLinear

        return LoraLinear(module, torch.empty(rank, shape_of(module)[1]), scale=1.0, train_a=self.train_a)


class FedIT(LoraMethod):
    """FedIT (arXiv 2305.05644): the clients' A and B are averaged one by one.

    The product of the means is not the mean of the products, ``(Σ pᵢ Bᵢ)(Σ pᵢ Aᵢ) ≠ Σ pᵢ Bᵢ Aᵢ``: averaging
    has an error, which the server measures in every round.
    """

    name = "fedit"
    exact = False
    train_a = True

    def contradictions(self, config: RunConfig) -> Iterator[Contradiction]:
        """Refuse differential privacy: noise on two factors multiplies, and the error would be a release."""
        if PRIVACY_MODELS.get(config.privacy.mechanism).private:
            yield Contradiction(
                "privacy.mechanism",
                'is not defined for fedit, which trains two factors; use method "fedsb" or "ffa-lora"',
                ("method",),
            )


class FFALoRA(LoraMethod):
    """FFA-LoRA (arXiv 2403.12313): A is frozen and the same everywhere, and B is averaged, which is exact.

    With differential privacy the noise on B reaches the weight through A alone, without a product of noises.
    """

    name = "ffa-lora"
    exact = True
    train_a = False


FEDIT = FedIT()
FFA_LORA = FFALoRA()
