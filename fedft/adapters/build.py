"""Making the frames of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedft.adapters import frozen
from fedft.adapters.frame import Frame, FrameSet
from fedft.adapters.gradients import checked_gradient
from fedft.adapters.initialisers import Initialiser, InitialiserContext
from fedft.errors import Code, FedftError
from fedft.options import NO_OPTIONS
from fedft.registries import FRAMES

Gradients = Callable[[nn.Module, Sequence[str]], Iterable[tuple[str, Tensor]]]


def build_frames(
    model: nn.Module,
    targets: Sequence[str],
    *,
    initialiser: str,
    rank: int,
    scale: float = 1.0,
    seed: int = 0,
    gradients: Gradients | None = None,
    eta: float = 1e-3,
    options: Any = NO_OPTIONS,
) -> FrameSet:
    """Make a frame for every target, one layer at a time.

    Args:
        model: without adapters; not changed.
        targets: module names, from ``resolve_targets``.
        initialiser: a name in `fedft.registries.FRAMES`.
        rank: r, at most min(out, in) of every target.
        scale: s, finite and positive.
        seed: of ``random`` frames.
        gradients: usually a ``SampleGradients``; called only when the initialiser needs gradients.
        eta: size of the step that ``lora-sb`` approximates, usually the first learning rate.
        options: of the initialiser itself, an instance of its ``options``.

    Raises:
        FedftError: FEDFT-2104 (rank), FEDFT-1010 (unknown initialiser), FEDFT-2106 (no gradients, or eta
            out of range), FEDFT-2107, FEDFT-2108 (gradients), FEDFT-2110 (a target cannot be adapted).

    """
    chosen = FRAMES.get(initialiser)
    if not (math.isfinite(eta) and eta > 0):
        raise FedftError(Code.INITIALISER_INPUT_MISSING, f"eta is {eta}, it must be finite and positive")
    if chosen.needs == "gradients" and gradients is None:
        raise FedftError(
            Code.INITIALISER_INPUT_MISSING,
            f"initialiser {initialiser} needs gradients",
            hint="name a public data set",
        )
    modules = {name: _checked_module(model, name, rank) for name in targets}

    def frame_of(pair: tuple[str, Tensor | None]) -> tuple[str, Frame]:
        name, gradient = pair
        if gradient is not None:
            checked_gradient(name, gradient)
        context = InitialiserContext(name, rank, scale, seed, eta, gradient, options)
        return name, chosen.build(_weight(chosen, modules[name]), context)

    pairs: Iterable[tuple[str, Tensor | None]] = ((name, None) for name in targets)
    if chosen.needs == "gradients" and gradients is not None:
        pairs = gradients(model, targets)
    # map, not a loop: a loop's variables would keep one full gradient alive while the next is computed.
    frames = dict(map(frame_of, pairs))
    if set(frames) != set(targets):
        raise FedftError(
            Code.INITIALISER_INPUT_MISSING, f"got gradients of {len(frames)} of {len(targets)} targets"
        )
    return FrameSet(frames)


def _weight(chosen: Initialiser, module: nn.Module) -> Tensor:
    if chosen.needs == "weights":
        return frozen.dense_weight(module)
    return torch.empty(frozen.shape_of(module), device="meta")


def _checked_module(model: nn.Module, name: str, rank: int) -> nn.Module:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise FedftError(Code.MODULE_NOT_ADAPTABLE, f"the model has no module {name!r}") from None
    shape = frozen.shape_of(module)
    if not 1 <= rank <= min(shape):
        raise FedftError(
            Code.RANK_OUT_OF_RANGE,
            f"rank {rank} does not fit {name} of shape {shape}",
            hint=f"use 1 to {min(shape)}",
        )
    return module
