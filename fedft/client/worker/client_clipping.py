"""A client's part in a round with client-level privacy: its update is clipped, the server adds the noise."""

from __future__ import annotations

import torch

from fedft.codecs import Manifest
from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.client_level import clip_delta
from fedft.store.records import UNCLIPPED
from fedft.tensors import Arrays
from fedft.wire import Instruction


def clip_update(
    config: RunConfig, instruction: Instruction, delta: Arrays, manifest: Manifest
) -> tuple[Arrays, dict[str, float]]:
    """Clip an update to the bound of the round, and return what the server must know of it.

    Raises:
        FedftError: FEDFT-8324 in a run with client-level privacy whose server names no bound.

    """
    if config.privacy.mechanism != "client":
        return delta, {}
    if not instruction.max_update_norm:
        raise FedftError(
            Code.NORM_BOUND_MISSING, "the run has client-level privacy, and the round names no bound"
        )
    flat = torch.from_numpy(manifest.flatten(delta))
    clipped, unclipped = clip_delta(flat, instruction.max_update_norm)
    told = {UNCLIPPED: float(unclipped)} if config.privacy.clip_quantile else {}
    return manifest.unflatten(clipped.numpy()), told
