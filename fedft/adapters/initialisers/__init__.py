"""The frame initialisers by name."""

from __future__ import annotations

from fedft.adapters.initialisers.interface import Initialiser, InitialiserContext
from fedft.adapters.initialisers.lora_sb import LORA_SB
from fedft.adapters.initialisers.lora_xs import LORA_XS
from fedft.adapters.initialisers.pissa import PISSA
from fedft.adapters.initialisers.random import RANDOM
from fedft.errors import Code, FedftError

INITIALISERS: dict[str, Initialiser] = {each.name: each for each in (LORA_SB, LORA_XS, PISSA, RANDOM)}

DP_SKETCH = "dp-sketch"
"""A frame of the clients' noised sketches: no function of what one machine has, so it is not in the table."""


def get_initialiser(name: str) -> Initialiser:
    """Return the initialiser of that name (FEDFT-2105 when there is none)."""
    if name not in INITIALISERS:
        raise FedftError(
            Code.UNKNOWN_INITIALISER, f"unknown initialiser {name!r}; known are {sorted(INITIALISERS)}"
        )
    return INITIALISERS[name]


__all__ = ["DP_SKETCH", "INITIALISERS", "Initialiser", "InitialiserContext", "get_initialiser"]
