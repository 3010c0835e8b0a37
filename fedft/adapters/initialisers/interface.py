"""What a frame initialiser is: a function from a weight and its context to a frame, and what it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fedft.adapters.frame import Frame
from fedft.options import NO_OPTIONS, NoOptions, Options


@dataclass(frozen=True)
class InitialiserContext:
    """All that an initialiser may use besides the weight.

    Args:
        name: name of the module, to tell its randomness from that of others.
        rank: r, at least 1 and at most min(out, in).
        scale: s.
        seed: the run's seed.
        eta: size of the first step, used with a gradient.
        gradient: ``(out, in)`` float32, the gradient of the mean loss with respect to W, when asked for.
        options: an instance of the initialiser's own ``options``.

    """

    name: str
    rank: int
    scale: float
    seed: int
    eta: float
    gradient: Tensor | None = None
    options: Any = NO_OPTIONS


@dataclass(frozen=True)
class Initialiser:
    """A way to make a frame, with what it needs and what it promises.

    Args:
        name: its name in the configuration.
        build: ``(weight, context) -> Frame``; weight is ``(out, in)``, and has a shape but no values (it
            is on the meta device) when ``needs`` is "nothing".
        needs: what besides the shape ``build`` works on; gradients are of the mean loss on public records.
        preserves_function: whether the adapted layer at ``R = R0`` computes what the base did, up to
            rounding.
        reproducible: whether every machine computes the same bits, so that the frame need not be shipped.
        reads_data: whether the frame depends on samples, and so reveals something about them.
        changes_base: whether its frames replace the base weight, which a quantised one cannot take.
        from_sketches: whether the frame is that of the clients' noised gradient sketches
            (``fedft.privacy.mechanisms.sketch``), in which case ``build`` only refuses.
        options: the schema of further keys of the configuration's section.

    """

    name: str
    build: Callable[[Tensor, InitialiserContext], Frame]
    needs: Literal["nothing", "weights", "gradients"]
    preserves_function: bool
    reproducible: bool
    reads_data: bool
    changes_base: bool = False
    from_sketches: bool = False
    options: type[Options] = NoOptions
