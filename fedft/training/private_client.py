"""What one client of a runtime does privately: a round of training, a sketch of its gradients."""

from __future__ import annotations

from fedft.codecs import Manifest
from fedft.privacy.mechanisms.sketch import SketchPlan
from fedft.tensors import Arrays
from fedft.training.head_stage import measure_center_private, train_head_private
from fedft.training.model_runtime import ModelRuntime
from fedft.training.private import train_private
from fedft.training.private_schedule import PrivateRounds
from fedft.training.sketch import sketch_client, sketch_manifest, sketch_plan
from fedft.training.stages import Stage, all_rounds, stage_of


def train_client(runtime: ModelRuntime, client: int, rounds: PrivateRounds, *, round_number: int) -> None:
    """Train one client privately for one round from the loaded state; charge the round before.

    ``rounds`` are those of as many records as the client has, and of the round's stage. Nothing but the
    runtime's state comes out.
    """
    stage = stage_of(runtime.config, round_number)
    if stage is Stage.ALL:
        _train_all(runtime, client, rounds, round_number - runtime.config.head.rounds)
        return
    head, pooled, labels = runtime.head_data(client)
    if stage is Stage.CENTER:
        measure_center_private(head, pooled, rounds)
    else:
        train_head_private(head, pooled, labels, runtime.config.head, rounds)


def _train_all(runtime: ModelRuntime, client: int, rounds: PrivateRounds, number: int) -> None:
    config, base = runtime.config, runtime.base
    head, matrices = runtime.trainable()
    train_private(
        base.model,
        runtime.task,
        runtime.client_data(client).train,
        config.training,
        rounds,
        max_grad_norm=config.privacy.max_grad_norm,
        probe=runtime.task.synthetic_samples(base.model),
        adapters=matrices,
        head=head,
        first_step=(number - 1) * rounds.steps,
        total_steps=all_rounds(config) * rounds.steps,
    )


def plan_of(runtime: ModelRuntime) -> SketchPlan:
    """Return what every client of a dp-sketch run sketches; the model is left without adapters."""
    return sketch_plan(runtime.config, runtime.target_shapes())


def sketch_of(runtime: ModelRuntime, client: int, rounds: PrivateRounds) -> tuple[Arrays, Manifest]:
    """Return one client's noised sketch and its manifest; charge it before."""
    config, base, plan = runtime.config, runtime.base, plan_of(runtime)
    arrays = sketch_client(
        base.model,
        runtime.task,
        runtime.client_data(client).train,
        rounds,
        plan,
        max_norm=config.privacy.sketch_max_norm,
        micro_batch=config.training.micro_batch_size or config.training.batch_size,
        probe=runtime.task.synthetic_samples(base.model),
    )
    return arrays, sketch_manifest(plan)
