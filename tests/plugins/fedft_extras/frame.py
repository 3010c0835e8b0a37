"""A frame of coordinate axes from a position on, which every machine computes alike."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fedft.adapters import Frame, Initialiser, InitialiserContext
from fedft.options import Options


class AxesOptions(Options):
    first_axis: int = Field(0, ge=0, description="the first coordinate axis")


def _build(weight: Tensor, context: InitialiserContext) -> Frame:
    rows, columns = weight.shape
    chosen = (torch.arange(context.rank) + context.options.first_axis) % min(rows, columns)
    r0 = torch.zeros(context.rank, context.rank)
    return Frame(torch.eye(rows)[:, chosen], torch.eye(columns)[chosen], r0, context.scale)


AXES = Initialiser(
    name="axes",
    build=_build,
    needs="nothing",
    preserves_function=True,
    reproducible=True,
    reads_data=False,
    options=AxesOptions,
)
