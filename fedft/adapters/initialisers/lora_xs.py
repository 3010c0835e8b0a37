"""The leading singular directions of the weight, after LoRA-XS (arXiv 2405.17604)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedft.adapters.frame import Frame
from fedft.adapters.initialisers.interface import Initialiser, InitialiserContext
from fedft.adapters.initialisers.svd import truncated_svd


def _build(weight: Tensor, context: InitialiserContext) -> Frame:
    """Return ``B = U_r``, ``A = V_rᵀ``, ``R0 = 0`` with ``W = U Σ Vᵀ``.

    LoRA-XS has ``A = Σ_r V_rᵀ`` and draws R from N(0, 1e-10). Here Σ is left out, which makes the frame
    orthonormal and trains the same set of functions (R takes Σ's place), and R starts at zero exactly.
    """
    u, _, vt = truncated_svd(weight, context.rank, what=f"{context.name}: the weight")
    r0 = torch.zeros(context.rank, context.rank)
    return Frame(u.float(), vt.float(), r0, context.scale)


LORA_XS = Initialiser(
    name="lora-xs",
    build=_build,
    needs="weights",
    preserves_function=True,
    reproducible=False,
    reads_data=False,
)
