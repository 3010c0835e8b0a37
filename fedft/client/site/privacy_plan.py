"""The privacy plan of a run: for simulated clients, or for one site with what it has spent already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedft.client.site.config import load_site
from fedft.client.site.ledger import open_ledger, site_records
from fedft.config import RunConfig
from fedft.privacy.accounting.accountants import COARSE, pld_epsilon
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.accounting.planning import PlanRow, plan
from fedft.privacy.models.interface import privacy_model
from fedft.statements import PrivacyUnit
from fedft.training.client_records import ClientRecords
from fedft.training.private_schedule import accounted_rounds, planned_event, private_head_of, spent_before
from fedft.training.proposal import Proposal, propose
from fedft.training.schedule import local_steps
from fedft.training.stages import Stage, all_rounds

_TARGETS = (1.0, 3.0, 8.0)


@dataclass(frozen=True)
class RunPlan:
    """What a run costs a client with so many examples, before it starts.

    ``proposal`` is what it should be set to, None where the unit is a client.
    """

    examples: int
    parameters: int
    delta: float
    spent: tuple[PrivacyEvent, ...]
    rows: list[PlanRow]
    proposal: Proposal | None = None

    @property
    def spent_epsilon(self) -> float:
        """ε of what the data set has paid already."""
        return pld_epsilon(self.spent, self.delta, interval=COARSE)


def plan_run(
    config: RunConfig,
    *,
    site: Path | None = None,
    epsilons: Sequence[float] | None = None,
    batches: Sequence[int] | None = None,
    examples: int = 0,
    parameters: int = 0,
) -> RunPlan:
    """Return the trade-off table of a run.

    Args:
        config: of the run; privacy may still be off in it.
        site: path of a ``site.toml``, whose records and ledger then count.
        epsilons: targets; None for 1, 3, 8 and the configuration's.
        batches: expected batches; None for those around the configuration's.
        examples: of a client; 0 to count the records. With client-level privacy, the number of clients.
        parameters: trainable ones; 0 to load the base model and count.

    Raises:
        FedftError: what reading data and model raises, FEDFT-8001 (δ), FEDFT-8101 (batch).

    """
    targets = sorted({*(epsilons or (*_TARGETS, config.privacy.epsilon))})
    if privacy_model(config).unit is PrivacyUnit.CLIENT:
        return _plan_clients(config, targets, batches, examples, parameters)
    found, spent = (examples, []) if examples and site is None else _data(config, site)
    examples = examples or found
    parameters = parameters or _count_parameters(config)
    batch = config.training.batch_size
    around = {batch // 2, batch, 2 * batch, 4 * batch}
    delta = config.privacy.delta
    rows = (
        [] if all_rounds(config) else [_head_row(config, target, examples, parameters) for target in targets]
    )
    rows += [
        row
        for target in targets
        if all_rounds(config)
        for row in plan(
            epsilons=[target],
            delta=delta,
            examples=examples,
            expected_batches=sorted(batches or (size for size in around if 0 < size <= examples)),
            steps=local_steps(config.training, examples) * all_rounds(config),
            parameters=parameters,
            spent=[*spent, *_before(config, examples, target)],
            event_of=lambda size: planned_event(config, examples, size),
        )
    ]
    rows.sort(key=lambda row: (row.expected_batch, row.epsilon))
    proposal = propose(config, examples=examples, parameters=parameters)
    return RunPlan(examples, parameters, delta, tuple(spent), rows, proposal)


def _plan_clients(
    config: RunConfig,
    targets: Sequence[float],
    cohorts: Sequence[int] | None,
    clients: int,
    parameters: int,
) -> RunPlan:
    """Return the trade-off where a unit is a client: a batch is the expected cohort, a step a round."""
    privacy = config.privacy
    clients = clients or config.data.partition.clients
    parameters = parameters or _count_parameters(config)
    expected = max(1, round(clients * privacy.client_rate))
    rows = plan(
        epsilons=targets,
        delta=privacy.delta,
        examples=clients,
        expected_batches=sorted(cohorts or {max(1, clients // 4), max(1, clients // 2), clients, expected}),
        steps=accounted_rounds(config),
        parameters=parameters,
    )
    return RunPlan(clients, parameters, privacy.delta, (), rows)


def _head_row(config: RunConfig, epsilon: float, examples: int, parameters: int) -> PlanRow:
    """Return the line of a run that trains its head alone, whose batches are all records."""
    stage = private_head_of(_at(config, epsilon), examples)[Stage.HEAD]
    sigma, steps = stage.noise_multiplier, stage.steps * stage.rounds
    return PlanRow(epsilon, examples, steps, 1.0, sigma, sigma * math.sqrt(parameters) / examples)


def _at(config: RunConfig, epsilon: float) -> RunConfig:
    target = config.privacy.model_copy(update={"epsilon": epsilon})
    return config.model_copy(update={"privacy": target})


def _before(config: RunConfig, examples: int, epsilon: float) -> tuple[PrivacyEvent, ...]:
    """Return what frame and head cost at this target, before the rounds that the plan is about."""
    return spent_before(_at(config, epsilon), examples)


def _data(config: RunConfig, site: Path | None) -> tuple[int, list[PrivacyEvent]]:
    """Return the number of a client's records, and what was released from them."""
    if site is None:
        records = ClientRecords(config)
        return min(records.count(client) for client in range(config.data.partition.clients)), []
    identity = load_site(site)
    own, client = site_records(identity, config)
    spent = open_ledger(identity).events(identity.privacy.dataset) if identity.privacy.ledger else []
    return own.count(client), spent


def _count_parameters(config: RunConfig) -> int:
    from fedft.training.model_runtime import ModelRuntime

    return ModelRuntime(config).count_trainable()
