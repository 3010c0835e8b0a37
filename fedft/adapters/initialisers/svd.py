"""The truncated singular value decomposition that the spectral initialisers share."""

from __future__ import annotations

import torch
from torch import Tensor

from fedft.errors import Code, FedftError


def truncated_svd(matrix: Tensor, rank: int, *, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``U (out, r)``, ``sigma (r,)`` and ``Vᵀ (r, in)``, all float64, of the leading components.

    The sign of a pair is fixed by making the largest entry of each column of U positive.

    Raises:
        FedftError: FEDFT-2107 when the matrix has a value that is not finite, naming ``what``.

    """
    if not torch.isfinite(matrix).all():
        raise FedftError(Code.MATRIX_DEGENERATE, f"{what} holds a value that is not finite")
    u, sigma, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    u, sigma, vt = u[:, :rank], sigma[:rank], vt[:rank]
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return u * signs, sigma, vt * signs.T
