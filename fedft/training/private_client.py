"""What one client of a runtime does privately: a round of training, a sketch of its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fedft.codecs import Manifest
from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.sketch import SketchPlan
from fedft.registries import CLIPPINGS
from fedft.tensors import Arrays
from fedft.training.head_stage import measure_center_private, train_head_private
from fedft.training.model_runtime import ModelRuntime
from fedft.training.private import train_private
from fedft.training.private_schedule import PrivateRounds
from fedft.training.sketch import sketch_client, sketch_manifest, sketch_plan
from fedft.training.stages import Stage, all_rounds, stage_of
from fedft.training.task import device_of, to_device

Samples = Callable[[], Sequence[Any]]
"""Charges a round and gives the client's samples; called once, after every check on made-up ones."""


def train_client(
    runtime: ModelRuntime, client: int, samples: Samples, rounds: PrivateRounds, *, round_number: int
) -> None:
    """Train one client privately for one round from the loaded state.

    ``rounds`` are those of as many records as the client has, and of the round's stage. Nothing but the
    runtime's state comes out.
    """
    stage = stage_of(runtime.config, round_number)
    if stage is Stage.ALL:
        _train_all(runtime, samples, rounds, round_number - runtime.config.head.rounds)
        return
    runtime.pooled_classifier()
    _try_longest(runtime)
    head, pooled, labels = runtime.head_data(client, samples())
    if stage is Stage.CENTER:
        measure_center_private(head, pooled, rounds)
    else:
        clipping = CLIPPINGS.get(runtime.config.privacy.clipping)
        train_head_private(head, pooled, labels, runtime.config.head, rounds, clipping)


def _train_all(runtime: ModelRuntime, samples: Samples, rounds: PrivateRounds, number: int) -> None:
    config, base = runtime.config, runtime.base
    _try_longest(runtime)
    head, matrices = runtime.trainable()
    train_private(
        base.model,
        runtime.task,
        samples,
        config.training,
        rounds,
        privacy=config.privacy,
        probe=runtime.task.synthetic_samples(base.model),
        adapters=matrices,
        head=head,
        first_step=(number - 1) * rounds.steps,
        total_steps=all_rounds(config) * rounds.steps,
    )


def plan_of(runtime: ModelRuntime) -> SketchPlan:
    """Return what every client of a dp-sketch run sketches; the model is left without adapters."""
    return sketch_plan(runtime.config, runtime.target_shapes())


def sketch_of(runtime: ModelRuntime, samples: Samples, rounds: PrivateRounds) -> tuple[Arrays, Manifest]:
    """Return one client's noised sketch and its manifest."""
    config, base, plan = runtime.config, runtime.base, plan_of(runtime)
    _try_longest(runtime)
    arrays = sketch_client(
        base.model,
        runtime.task,
        samples,
        rounds,
        plan,
        max_norm=config.privacy.sketch_max_norm,
        micro_batch=config.training.micro_batch_size or config.training.batch_size,
        probe=runtime.task.synthetic_samples(base.model),
    )
    return arrays, sketch_manifest(plan)


def _try_longest(runtime: ModelRuntime) -> None:
    """Run a made-up sample of the greatest length forward, so that no long record is what fails later.

    Raises:
        FedftError: FEDFT-2007 where the model takes no sample of ``task.max_length`` tokens.

    """
    config, base, task = runtime.config, runtime.base, runtime.task
    longest = task.synthetic_samples(base.model, (config.task.max_length,))
    try:
        with torch.no_grad():
            task.per_sample_loss(base.model, to_device(task.collate(longest), device_of(base.model)))
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError) as error:
        raise FedftError(
            Code.SAMPLE_TOO_LONG_FOR_MODEL,
            f"the model takes no sample of task.max_length {config.task.max_length} tokens: {error}",
            hint="lower task.max_length to what the model was made for",
        ) from error
