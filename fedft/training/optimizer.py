"""Which implementation of AdamW steps, by how it keeps its two numbers for each parameter."""

from __future__ import annotations

from typing import cast

import torch

from fedft.errors import Code, FedftError

_BITSANDBYTES = {"adamw8bit": "AdamW8bit", "paged-adamw8bit": "PagedAdamW8bit"}


def adamw_class(name: str, device: torch.device) -> type[torch.optim.AdamW]:
    """Return torch's AdamW, or bitsandbytes' with 8-bit state (arXiv 2110.02861), which takes its arguments.

    bitsandbytes keeps tensors of fewer than 4096 elements in 32 bits all the same. The paged one moves its
    state to the CPU's memory when the device's is short.

    Args:
        name: ``training.optimizer``.
        device: of the parameters.

    Raises:
        FedftError: FEDFT-3032 for 8-bit state away from a CUDA device, where bitsandbytes has no kernels
            for it and would compute something else.

    """
    if name == "adamw":
        return torch.optim.AdamW
    if device.type != "cuda":
        raise FedftError(
            Code.OPTIMIZER_NEEDS_CUDA,
            f"training.optimizer is {name!r}, which needs a CUDA device; the model is on {device.type}",
            hint='set training.optimizer = "adamw", or model.device = "cuda" where there is one',
        )
    import bitsandbytes

    return cast(type[torch.optim.AdamW], getattr(bitsandbytes.optim, _BITSANDBYTES[name]))
