"""What one client of a session does privately: a round of training, a sketch of its gradients."""

from __future__ import annotations

from fedft.codecs import Manifest
from fedft.privacy.configured import PrivateRounds
from fedft.privacy.sketch import SketchPlan
from fedft.store.files import Arrays
from fedft.training.private import made_up_samples, train_private
from fedft.training.session import Session
from fedft.training.sketching import sketch_client, sketch_manifest, sketch_plan


def train_client(session: Session, client: int, rounds: PrivateRounds, *, round_number: int) -> None:
    """Train one client privately for one round from the loaded state; charge the round before.

    ``rounds`` are those of as many records as the client has. Nothing but the session's state comes out.
    """
    config, base = session.config, session.base
    head, matrices = session.trainable()
    train_private(
        base.model,
        session.task,
        session.client_data(client).train,
        config.training,
        rounds,
        max_grad_norm=config.privacy.max_grad_norm,
        probe=made_up_samples(config, base.model, base.tokenizer),
        adapters=matrices,
        head=head,
        first_step=(round_number - 1) * rounds.steps,
        total_steps=config.rounds.total * rounds.steps,
    )


def plan_of(session: Session) -> SketchPlan:
    """Return what every client of a dp-sketch run sketches; the model is left without adapters."""
    return sketch_plan(session.config, session.target_shapes())


def sketch_of(session: Session, client: int, rounds: PrivateRounds) -> tuple[Arrays, Manifest]:
    """Return one client's noised sketch and its manifest; charge it before."""
    config, base, plan = session.config, session.base, plan_of(session)
    arrays = sketch_client(
        base.model,
        session.task,
        session.client_data(client).train,
        rounds,
        plan,
        max_norm=config.privacy.sketch_max_norm,
        micro_batch=config.training.micro_batch_size or config.training.batch_size,
        probe=made_up_samples(config, base.model, base.tokenizer),
    )
    return arrays, sketch_manifest(plan)
