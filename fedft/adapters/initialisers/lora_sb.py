"""The best approximation of the first full fine-tuning step: LoRA-SB (arXiv 2411.19557)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedft.adapters.frame import Frame
from fedft.adapters.initialisers.interface import Initialiser, InitialiserContext
from fedft.adapters.initialisers.svd import truncated_svd
from fedft.errors import Code, FedftError


def _build(weight: Tensor, context: InitialiserContext) -> Frame:
    """Return the rank-r truncated SVD of ``-eta * sign(G)``: ``U_r``, ``diag(Σ_r) / s``, ``V_rᵀ``.

    Adam's first step is ``-eta * sign(G)``; entries of G that are zero stay zero. W is not changed, so
    that the adapted layer starts from the approximated step.
    """
    gradient = context.gradient
    if gradient is None or gradient.shape != weight.shape:
        raise FedftError(
            Code.INITIALISER_INPUT_MISSING, f"{context.name}: lora-sb needs the gradient of the full weight"
        )
    step = -context.eta * torch.sign(gradient.double())
    u, sigma, vt = truncated_svd(step, context.rank, what=f"{context.name}: the gradient")
    r0 = torch.diag(sigma / context.scale)
    return Frame(u.float(), vt.float(), r0.float(), context.scale)


LORA_SB = Initialiser(
    name="lora-sb",
    build=_build,
    needs="gradients",
    preserves_function=False,
    reproducible=False,
    reads_data=True,
)
