"""The samples of a run: of its clients, of the public records, of the central evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedft.config import RunConfig
from fedft.data.report import DataReport
from fedft.models.load import BaseModel
from fedft.training import seeds
from fedft.training.client_records import ClientRecords, load_records_of
from fedft.training.task import Task


@dataclass(frozen=True)
class ClientData:
    """One client's samples: to train on, and held out for federated evaluation (may be empty)."""

    train: Sequence[Any]
    held_out: Sequence[Any]
    report: DataReport


class RunData:
    """Samples that the task makes of the run's records, each kind at first use.

    Args:
        config: Names the records, their partition and what is held out.
        task: Makes samples of records.
        base: The model that reads the samples.

    """

    def __init__(self, config: RunConfig, task: Task[Any], base: BaseModel) -> None:
        self._config, self._task, self._base = config, task, base
        self.records = ClientRecords(config)
        self._clients: dict[int, ClientData] = {}
        self._private: dict[int, list[Any]] = {}

    @cached_property
    def test(self) -> tuple[Sequence[Any], DataReport]:
        """The samples of the central evaluation."""
        records = load_records_of(self._config, "test").sample(self._config.data.max_test, self._seed("test"))
        return self._task.prepare(records)

    def public(self, count: int | None = None) -> Sequence[Any]:
        """Return the samples of the public records: ``count`` of them drawn by the run's seed, or all."""
        records = load_records_of(self._config, "public")
        samples, _ = self._task.prepare(
            records if count is None else records.sample(count, self._seed("public"))
        )
        return samples

    def of(self, client: int) -> ClientData:
        """Return one simulated client's samples."""
        if client not in self._clients:
            samples, report = self._task.prepare(self.records.of(client))
            train, held_out = self._hold_out(samples, client)
            self._clients[client] = ClientData(train, held_out, report)
        return self._clients[client]

    def private(self, client: int) -> Sequence[Any]:
        """Return what came of a client's records; no record makes this fail.

        A record that cannot be read, or that has a token which the model does not know, gives no sample.
        """
        if client not in self._private:
            samples, _ = self._task.prepare(self.records.of(client), skip_unreadable=True)
            known = self._base.vocabulary
            self._private[client] = [sample for sample in samples if max(sample.ids) < known]
        return self._private[client]

    def all_clients(self) -> list[Any]:
        """Return all clients' training samples together."""
        clients = range(self._config.data.partition.clients)
        return [sample for client in clients for sample in self.of(client).train]

    def _hold_out(self, samples: Sequence[Any], client: int) -> tuple[Sequence[Any], Sequence[Any]]:
        settings = self._config.evaluation
        count = int(settings.holdout * len(samples)) if settings.federated else 0
        if not count:
            return samples, []
        rng = np.random.default_rng(seeds.derive_seed(self._config.seed, "holdout", client))
        held = set(rng.choice(len(samples), size=count, replace=False).tolist())
        kept = [sample for index, sample in enumerate(samples) if index not in held]
        return kept, [samples[index] for index in sorted(held)]

    def _seed(self, use: str) -> int:
        return seeds.derive_seed(self._config.seed, use)
