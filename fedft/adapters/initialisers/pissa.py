"""The leading part of the weight itself, after PiSSA (arXiv 2404.02948), in frame form."""

from __future__ import annotations

import torch
from torch import Tensor

from fedft.adapters.frame import Frame
from fedft.adapters.initialisers.interface import Initialiser, InitialiserContext
from fedft.adapters.initialisers.svd import truncated_svd


def _build(weight: Tensor, context: InitialiserContext) -> Frame:
    """Return ``B = U_r``, ``A = V_rᵀ``, ``R0 = diag(Σ_r) / s`` on the residual base ``W - s B R0 A``.

    PiSSA trains ``U Σ^½`` and ``Σ^½ Vᵀ``, whose product does not average exactly; the frame form trains R.
    """
    u, sigma, vt = truncated_svd(weight, context.rank, what=f"{context.name}: the weight")
    r0 = torch.diag(sigma / context.scale)
    return Frame(u.float(), vt.float(), r0.float(), context.scale, residual=True)


PISSA = Initialiser(
    name="pissa",
    build=_build,
    needs="weights",
    preserves_function=True,
    reproducible=False,
    reads_data=False,
    changes_base=True,
)
