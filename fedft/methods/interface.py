"""What a federated method is.

A method is an object without state that a run's configuration names. Its module imports no model library
before a model is at hand, because the configuration asks it what it can be combined with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fedft.tensors import Arrays

if TYPE_CHECKING:
    from torch import nn

    from fedft.adapters import AdapterLayer, Frames, SampleGradients
    from fedft.config import RunConfig
    from fedft.config.rules import Contradiction


@dataclass(frozen=True)
class FrameFacts:
    """What is known of a run's frame before it is made.

    Attributes:
        name: how it is made, as a site's policy names it.
        reproducible: whether every machine computes the same bits, so that it need not be shipped.
        reads_data: whether it depends on samples, and so reveals something about them.
        needs: what besides shapes, or the clients' messages, it is made of; gradients are of the mean loss on
            public records. With nothing, training starts from what the base computes: ``Frames.base_state``.
        changes_base: whether it replaces the base weight, which a quantised one cannot take.
        from_sketches: whether it is that of the clients' noised gradient sketches.

    """

    name: str
    reproducible: bool
    reads_data: bool
    needs: Literal["nothing", "weights", "gradients"] = "nothing"
    changes_base: bool = False
    from_sketches: bool = False


class Method(ABC):
    """A federated method of parameter-efficient fine-tuning.

    What is shipped once is the *frame*: the frozen part of the adapters and what training starts from. What
    is trained and exchanged are the parts that the frame's layers name (``LayerFrame.parts``), and a head
    where one is trained. How a result is exported follows from the frame too: as a change of the weights, or
    as two factors of it.

    Attributes:
        name: in the configuration.
        exact: whether the change of the weights is affine in everything that is exchanged, so that the mean
            of the states gives the mean of the changes: ``change(Σ pᵢ sᵢ) = Σ pᵢ change(sᵢ)``, Σ pᵢ = 1.

    """

    name: ClassVar[str]
    exact: ClassVar[bool]

    @abstractmethod
    def frame_facts(self, config: RunConfig) -> FrameFacts:
        """Say how the frame of a run comes about."""

    @abstractmethod
    def build_frames(
        self,
        model: nn.Module,
        targets: Sequence[str],
        config: RunConfig,
        gradients: Callable[[], SampleGradients],
    ) -> Frames:
        """Make the frame of a run.

        Args:
            model: without adapters; not changed.
            targets: names of the modules to adapt.
            config: of the run.
            gradients: gives the gradients on public records; called only where they are needed.

        Raises:
            FedftError: FEDFT-2104 (rank), FEDFT-2106 (a frame that one machine alone cannot make), FEDFT-2110
                (a target cannot be adapted), and what the frame's initialiser raises.

        """

    @abstractmethod
    def read_frames(self, data: bytes) -> Frames:
        """Decode what ``Frames.to_bytes`` of this method's frames wrote, from whoever; FEDFT-2109."""

    @abstractmethod
    def trained_elements(self, shape: tuple[int, int], rank: int) -> int:
        """Return how many numbers are trained for a weight of shape (out, in)."""

    @abstractmethod
    def planned_layer(self, module: nn.Module, rank: int) -> AdapterLayer:
        """Put the adapter of a rank on a module whose tensors may have no memory, to plan a training step."""

    def contradictions(self, config: RunConfig) -> Iterator[Contradiction]:
        """Yield what this method cannot be combined with; imports no model library."""
        yield from ()

    def update(self, before: Arrays, after: Arrays) -> Arrays:
        """Return what a client sends, of its state before and after training: the difference."""
        return {name: after[name] - before[name] for name in before}

    def next_state(self, state: Arrays, mean: Arrays) -> Arrays:
        """Return the state after a round, of the one before it and the weighted mean of the updates.

        Server and clients both compute it, in float32, and must get the same bits.
        """
        return {name: state[name] + mean[name] for name in state}
