"""What a federated run is worth: central training on the pooled data, and each client alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fedft.server.evaluation import records_of
from fedft.server.events import Notice, Observer, nobody
from fedft.server.offline import open_round
from fedft.store import EvaluationRecord, RunRecord, RunStore
from fedft.training.schedule import local_steps
from fedft.training.seeds import generator
from fedft.training.session import Session


def compare(store: RunStore, run: RunRecord, observer: Observer = nobody) -> list[EvaluationRecord]:
    """Train the run's adapters centrally and on each client alone, and store how they do.

    All start from the run's frame and state and take the run's number of optimiser steps. Central
    training sees in each step what all clients of a round see together: ``batch_size`` times their
    number. The evaluations join the last round under the scopes "pooled" and "alone:<client>".
    """
    session = open_round(store, run, 0)
    start = session.state()
    records = list(_measured(session, "pooled", observer, train_pooled))
    for client in range(session.config.data.partition.clients):
        session.load(start)
        records += _measured(
            session, f"alone:client-{client:03d}", observer, partial(train_alone, client=client)
        )
    last = store.last_round(run.id)
    if last is not None:
        store.put_evaluations(run.id, last, records)
    return records


def train_pooled(session: Session, *, head_only: bool = False) -> None:
    """Train on all clients' data from the session's state: the run's steps, the clients' batches joined.

    ``head_only`` leaves the adapters as they are.
    """
    section, rounds = session.config.training, session.config.rounds
    samples = session.pooled()
    together = rounds.cohort or session.config.data.partition.clients
    steps = rounds.total * local_steps(section, len(samples) // together)
    joined = section.model_copy(update={"steps": steps, "batch_size": together * section.batch_size})
    seed = generator(session.config.seed, "compare", "pooled")
    session.fit(samples, generator=seed, section=joined, head_only=head_only)


def train_alone(session: Session, client: int) -> None:
    """Train on one client's data from the session's state, with the run's number of steps."""
    section = session.config.training
    samples = session.client_data(client).train
    steps = session.config.rounds.total * local_steps(section, len(samples))
    longer = section.model_copy(update={"steps": steps})
    session.fit(samples, generator=generator(session.config.seed, "compare", client), section=longer)


def _measured(
    session: Session, scope: str, observer: Observer, train: Callable[[Session], None]
) -> tuple[EvaluationRecord, ...]:
    observer(Notice("comparison", f"training for comparison: {scope}"))
    train(session)
    return records_of(session.evaluate(session.test[0]), scope)
