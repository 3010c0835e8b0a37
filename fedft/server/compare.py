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

    All start from the run's frame and state and take the run's number of optimiser steps: ``pooled`` with
    the run's batch size on all clients' data, ``pooled, joined batches`` with as many samples a step as
    all clients of a round see together, ``alone:<client>`` on one client's data. The evaluations join the
    last round under these scopes.
    """
    session = open_round(store, run, 0)
    start = session.state()
    clients = session.config.data.partition.clients
    arms: dict[str, Callable[[Session], None]] = {
        "pooled": train_pooled,
        "pooled, joined batches": partial(train_pooled, join_batches=True),
        **{f"alone:client-{client:03d}": partial(train_alone, client=client) for client in range(clients)},
    }
    records: list[EvaluationRecord] = []
    for scope, train in arms.items():
        observer(Notice("comparison", f"training for comparison: {scope}"))
        session.load(start)
        train(session)
        measured = records_of(session.evaluate(session.test[0]), scope)
        store.put_evaluations(run.id, run.rounds, measured)
        records += measured
    return records


def train_pooled(session: Session, *, join_batches: bool = False, head_only: bool = False) -> None:
    """Train on all clients' data from the session's state, with the number of steps of one client's run.

    ``join_batches`` gives each step the samples that all clients of a round see together, ``head_only``
    leaves the adapters as they are.
    """
    section, rounds = session.config.training, session.config.rounds
    samples = session.pooled()
    together = rounds.cohort or session.config.data.partition.clients
    steps = rounds.total * local_steps(section, len(samples) // together)
    size = section.batch_size * (together if join_batches else 1)
    changed = section.model_copy(update={"steps": steps, "batch_size": size})
    seed = generator(session.config.seed, "compare", "pooled")
    session.fit(samples, generator=seed, section=changed, head_only=head_only)


def train_alone(session: Session, client: int) -> None:
    """Train on one client's data from the session's state, with the run's number of steps."""
    section = session.config.training
    samples = session.client_data(client).train
    steps = session.config.rounds.total * local_steps(section, len(samples))
    longer = section.model_copy(update={"steps": steps})
    session.fit(samples, generator=generator(session.config.seed, "compare", client), section=longer)
