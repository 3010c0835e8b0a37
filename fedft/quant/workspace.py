"""The buffer that frozen weights are dequantised into, one for all layers.

A fresh buffer for every use would cost more than the arithmetic: the C library returns blocks of 32 MiB and
more to the operating system, and touching new pages runs at a tenth of the speed of memory.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_own = threading.local()


def take(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a matrix of undefined content, valid until the next call for this device and stream.

    Each Python thread and each CUDA stream has its own buffer, so that nobody's weight is overwritten
    before it has been used. A buffer grows to the largest layer and stays.
    """
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    buffers: dict[tuple[torch.device, int], Tensor] = _own.__dict__.setdefault("buffers", {})
    size = shape[0] * shape[1] * dtype.itemsize
    buffer = buffers.get((device, stream))
    if buffer is None or buffer.numel() < size:
        buffers.pop((device, stream), None)  # freed before the larger one is made
        del buffer
        buffer = buffers[device, stream] = torch.empty(size, dtype=torch.uint8, device=device)
    return buffer[:size].view(dtype).view(shape)


def bytes_held() -> int:
    """Return the size of this thread's buffers."""
    return sum(buffer.numel() for buffer in _own.__dict__.get("buffers", {}).values())


def release() -> None:
    """Drop this thread's buffers."""
    _own.__dict__.pop("buffers", None)
