"""A frame of the clients' noised sketches: no function of what one machine has."""

from __future__ import annotations

from torch import Tensor

from fedft.adapters.frame import Frame
from fedft.adapters.initialisers.interface import Initialiser, InitialiserContext
from fedft.errors import Code, FedftError


def _refuse(weight: Tensor, context: InitialiserContext) -> Frame:
    raise FedftError(
        Code.INITIALISER_INPUT_MISSING,
        "a dp-sketch frame comes from the clients' sketches alone",
        hint="choose another adapter.initialiser where there are no clients",
    )


DP_SKETCH = Initialiser(
    name="dp-sketch",
    build=_refuse,
    needs="nothing",
    preserves_function=True,
    reproducible=False,
    reads_data=True,
    from_sketches=True,
)
