"""Telling a lack of memory from other failures: after one the process is not fit to go on."""

from __future__ import annotations

import sys


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of an accelerator, has run out."""
    torch = sys.modules.get("torch")  # where it is not imported, nothing of it can have failed
    kinds = (MemoryError, torch.OutOfMemoryError) if torch is not None else (MemoryError,)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
