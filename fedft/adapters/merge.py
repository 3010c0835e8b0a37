"""Writing the trained adapters into the weights."""

from __future__ import annotations

import torch
from torch import nn

from fedft.adapters import frozen
from fedft.adapters.attach import AdapterHandle
from fedft.errors import Code, FedftError
from fedft.quant.dense import is_plain


def merge(handle: AdapterHandle) -> nn.Module:
    """Add each layer's change to its float32 weight, take the adapters off and return the plain model.

    Extra trainable parameters keep their trained values. All weights are checked before one is changed.

    Raises:
        FedftError: FEDFT-2119 for a weight that is not float32: in bfloat16 the sum loses most of the
            change (24 % of it where the change is 1 % of the weight), and a quantised weight cannot take it.

    """
    for name, module in handle.originals.items():
        _require_float32(name, module)
    frames, state = handle.frames, handle.state()
    for name, module in handle.originals.items():
        change = frames[name].change(frames.values_of(name, state))
        weight = frozen.dense_weight(module)
        weight.copy_(weight.double() + change.to(weight.device))
    handle.release()
    return handle.model


def _require_float32(name: str, module: nn.Module) -> None:
    plain = is_plain(module)
    dtype = frozen.dense_weight(module).dtype if plain else None
    if dtype != torch.float32:
        raise FedftError(
            Code.MERGE_NEEDS_FLOAT32,
            f"{name}: a weight in {dtype or type(module).__name__} cannot take the adapter, whose change is "
            "below its resolution",
            hint="merge into the float32 model, or export the adapter on its own",
        )
