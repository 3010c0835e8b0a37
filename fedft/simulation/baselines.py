"""What a federated run is worth: central training on the pooled data, and each client alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fedft.coordinator.evaluation import records_of
from fedft.coordinator.events import Notice, Observer, nobody
from fedft.simulation.checkpoints import open_round
from fedft.store import EvaluationRecord, RunRecord, RunStore
from fedft.training.model_runtime import ModelRuntime
from fedft.training.schedule import local_steps
from fedft.training.seeds import generator


def compare(store: RunStore, run: RunRecord, observer: Observer = nobody) -> list[EvaluationRecord]:
    """Train the run's adapters centrally and on each client alone, and store how they do.

    All start from the run's frame and state and take the run's number of optimiser steps: ``pooled`` with
    the run's batch size on all clients' data, ``pooled, joined batches`` with as many samples a step as
    all clients of a round see together, ``alone:<client>`` on one client's data. The evaluations join the
    last round under these scopes.
    """
    runtime = open_round(store, run, 0)
    start = runtime.state()
    clients = runtime.config.data.partition.clients
    arms: dict[str, Callable[[ModelRuntime], None]] = {
        "pooled": train_pooled,
        "pooled, joined batches": partial(train_pooled, join_batches=True),
        **{f"alone:client-{client:03d}": partial(train_alone, client=client) for client in range(clients)},
    }
    records: list[EvaluationRecord] = []
    for scope, train in arms.items():
        observer(Notice("comparison", f"training for comparison: {scope}"))
        runtime.load(start)
        train(runtime)
        measured = records_of(runtime.evaluate(runtime.data.test[0]), scope)
        store.put_evaluations(run.id, run.rounds, measured)
        records += measured
    return records


def train_pooled(runtime: ModelRuntime, *, join_batches: bool = False, head_only: bool = False) -> None:
    """Train on all clients' data from the runtime's state, with the number of steps of one client's run.

    ``join_batches`` gives each step the samples that all clients of a round see together, ``head_only``
    leaves the adapters as they are.
    """
    section, rounds = runtime.config.training, runtime.config.rounds
    samples = runtime.data.all_clients()
    together = rounds.cohort or runtime.config.data.partition.clients
    steps = rounds.total * local_steps(section, len(samples) // together)
    size = section.batch_size * (together if join_batches else 1)
    changed = section.model_copy(update={"steps": steps, "batch_size": size})
    seed = generator(runtime.config.seed, "compare", "pooled")
    runtime.fit(samples, generator=seed, section=changed, head_only=head_only)


def train_alone(runtime: ModelRuntime, client: int) -> None:
    """Train on one client's data from the runtime's state, with the run's number of steps."""
    section = runtime.config.training
    samples = runtime.data.of(client).train
    steps = runtime.config.rounds.total * local_steps(section, len(samples))
    longer = section.model_copy(update={"steps": steps})
    runtime.fit(samples, generator=generator(runtime.config.seed, "compare", client), section=longer)
