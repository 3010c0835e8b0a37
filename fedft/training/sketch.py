"""One client's noised sketch of its gradients, and the frame that the sum of all sketches gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedft.adapters import FrameSet
from fedft.adapters.frame import Frame
from fedft.codecs import Manifest
from fedft.config import RunConfig
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.privacy.mechanisms.sketch import SketchPlan, frames_from_sketch, private_sketch
from fedft.tensors import Arrays
from fedft.training.private_schedule import PrivateRounds
from fedft.training.seeds import derive_seed
from fedft.training.task import Batch, Task, batches_by_length, device_of, to_device

_COLUMNS, _ROWS = ".columns", ".rows"


def sketch_plan(config: RunConfig, shapes: Mapping[str, tuple[int, int]]) -> SketchPlan:
    """Return what every client sketches: the adapted layers, each (out, in), with probes from the seed."""
    smallest = min(min(shape) for shape in shapes.values())
    width = min(config.adapter.rank + config.adapter.oversampling, smallest)
    return SketchPlan.random(shapes, width, derive_seed(config.seed, "sketch"))


def sketch_manifest(plan: SketchPlan) -> Manifest:
    """Return names and shapes of a sketch as it travels."""
    return Manifest.of(_named(plan, torch.zeros(plan.dimension)))


def sketch_client(
    model: nn.Module,
    task: Task[Any],
    samples: Callable[[], Sequence[Any]],
    rounds: PrivateRounds,
    plan: SketchPlan,
    *,
    max_norm: float,
    micro_batch: int,
    probe: Sequence[Any],
) -> Arrays:
    """Return one client's noised mean sketch, named and float32.

    Guarantee: one release whose cost is ``rounds.event()``, for one record that is replaced by one that
    gives no sample. ``samples`` is called once, when everything has been tried on made-up samples; the event
    must be charged before it returns.

    Args:
        model: the frozen base without adapters.
        task: gives batches and losses.
        samples: gives what came of the client's records, as in ``train_private``.
        rounds: draws the one batch.
        plan: what to sketch.
        max_norm: L2 bound of one sample's sketch over all layers.
        micro_batch: samples in one backward pass.
        probe: made-up samples, on which everything is tried before it sees a private one.

    Raises:
        FedftError: as ``private_sketch``.

    """

    device = device_of(model)
    mechanism = GaussianMechanism(
        plan.dimension,
        max_norm=max_norm,
        noise_multiplier=rounds.noise_multiplier,
        denominator=rounds.sampler.expected_batch,
    )

    def batches() -> Iterator[Batch]:
        revealed = samples()
        (indices,) = rounds.sampler.batches(1)
        drawn = [revealed[index] for index in indices.tolist() if index < len(revealed)]
        for chunk in batches_by_length(drawn, micro_batch):
            yield to_device(task.collate(chunk), device)

    made_up = to_device(task.collate(probe), device)
    return _named(
        plan, private_sketch(model, task.per_sample_loss, batches(), plan, mechanism, probe=made_up)
    )


def sketched_frames(plan: SketchPlan, mean: Arrays, *, rank: int, scale: float) -> FrameSet:
    """Return frames that span the leading directions of a mean of sketches, with R0 = 0."""
    parts = []
    for name in plan.probes:
        for suffix in (_COLUMNS, _ROWS):
            parts.append(torch.from_numpy(np.ascontiguousarray(mean[name + suffix])).flatten())
    found = frames_from_sketch(plan, torch.cat(parts), rank)
    return FrameSet({name: Frame(b, a, torch.zeros(rank, rank), scale) for name, (b, a) in found.items()})


def _named(plan: SketchPlan, flat: Tensor) -> Arrays:
    found: Arrays = {}
    for name in plan.probes:
        sketch = plan.blocks(name, flat)
        found[name + _COLUMNS], found[name + _ROWS] = sketch.columns.numpy(), sketch.rows.numpy()
    return found
