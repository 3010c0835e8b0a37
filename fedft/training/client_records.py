"""The training records of a configuration's clients; needs no model."""

from __future__ import annotations

import json
from functools import cached_property

from fedft.config import RunConfig
from fedft.data.partition import partition
from fedft.data.readers import Split, load_records
from fedft.data.records import Records
from fedft.privacy.site.ledger import fingerprint
from fedft.training.seeds import derive_seed


class ClientRecords:
    """Reads the training records once, and deals them to the clients."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._fingerprints: dict[int, tuple[str, int]] = {}

    def of(self, client: int) -> Records:
        """Return one client's records."""
        return self._all.take(self._parts[client])

    def count(self, client: int) -> int:
        """Return how many records a client has, those included that give no sample."""
        return len(self._parts[client])

    def fingerprint(self, client: int) -> tuple[str, int]:
        """Return a digest of a client's records, and their number.

        A site's own data are taken as they lie there, whatever part of them ``data.max_train`` chooses.
        """
        if client not in self._fingerprints:
            own = self._config.data.partition.clients == 1
            records = load_records_of(self._config, "train") if own else self.of(client)
            encoded = (json.dumps(record, sort_keys=True, default=str).encode() for record in records)
            self._fingerprints[client] = fingerprint(encoded), len(records)
        return self._fingerprints[client]

    @cached_property
    def _all(self) -> Records:
        seed = derive_seed(self._config.seed, "train")
        return load_records_of(self._config, "train").sample(self._config.data.max_train, seed)

    @cached_property
    def _parts(self) -> list[list[int]]:
        data = self._config.data
        seed = derive_seed(self._config.seed, "partition")
        return partition(self._all, data.partition, seed, data.fields.label)


def load_records_of(config: RunConfig, split: Split) -> Records:
    """Read the train, test or public records that a configuration names."""
    data = config.data
    sources: dict[Split, str] = {"train": data.train, "test": data.test, "public": data.public}
    return load_records(sources[split], format=data.format, columns=data.columns, split=split)
