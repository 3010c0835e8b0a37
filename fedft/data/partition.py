"""Partitioners: one dataset becomes several clients'.

Every sample goes to exactly one client; the same arguments give the same partition. The random ones
draw from a local numpy generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from fedft.config.schema import PartitionSection
from fedft.data.records import Records
from fedft.errors import Code, FedftError

Partition = list[list[int]]


def partition(records: Records, section: PartitionSection, seed: int, label_field: str = "") -> Partition:
    """Deal records to clients.

    Args:
        records: all training records.
        section: the partitioner and its settings.
        seed: seed of the random partitioners.
        label_field: the field that a Dirichlet split skews when ``section.field`` names none.

    Returns:
        For every client, the sorted indices of its records.

    Raises:
        FedftError: FEDFT-3010 a client has too few samples, FEDFT-3011 there are fewer values or
            files than clients, FEDFT-3005 a record lacks the field.

    """
    rng = np.random.default_rng(seed)
    field = section.field or label_field
    match section.kind:
        case "iid":
            parts = _iid(len(records), section.clients, rng)
        case "dirichlet":
            parts = _dirichlet(_values(records, field), section.clients, section.alpha, rng)
        case "field":
            parts = _deal(_values(records, field), section.clients, f"field {field!r}")
        case "files":
            parts = _one_each(records.origins, section.clients)
    parts = [sorted(part) for part in parts]
    _check_sizes(parts, section)
    return parts


def _iid(count: int, clients: int, rng: np.random.Generator) -> Partition:
    return [part.tolist() for part in np.array_split(rng.permutation(count), clients)]


def _dirichlet(values: Sequence[Hashable], clients: int, alpha: float, rng: np.random.Generator) -> Partition:
    """Skew by value: each value's samples are cut by proportions drawn from Dirichlet(alpha).

    Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", 2019, section 4.
    """
    parts: Partition = [[] for _ in range(clients)]
    for value in _distinct(values):
        members = rng.permutation([i for i, other in enumerate(values) if other == value])
        shares = rng.dirichlet(np.full(clients, alpha))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.extend(piece.tolist())
    return parts


def _deal(values: Sequence[Hashable], clients: int, what: str) -> Partition:
    """Deal the sorted distinct values round robin; a client holds every sample of its values."""
    distinct = _distinct(values)
    if len(distinct) < clients:
        raise FedftError(
            Code.PARTITION_MISMATCH,
            f"{what} has {len(distinct)} values, too few for {clients} clients",
            hint="lower data.partition.clients or choose another field",
        )
    owner = {value: index % clients for index, value in enumerate(distinct)}
    parts: Partition = [[] for _ in range(clients)]
    for index, value in enumerate(values):
        parts[owner[value]].append(index)
    return parts


def _one_each(origins: Sequence[str], clients: int) -> Partition:
    files = len(set(origins))
    if files != clients:
        raise FedftError(
            Code.PARTITION_MISMATCH,
            f'partition kind "files" gives each file to one client: {files} files, {clients} clients',
            hint="set data.partition.clients to the number of files",
        )
    return _deal(origins, clients, "data.train")


def _values(records: Records, field: str) -> list[Hashable]:
    records.require(field)
    return [_hashable(row[field]) for row in records]


def _hashable(value: Any) -> Hashable:
    return value if isinstance(value, Hashable) else repr(value)


def _distinct(values: Sequence[Hashable]) -> list[Hashable]:
    """Distinct values in an order that does not depend on hashing: numbers by size, then by text."""
    return sorted(Counter(values), key=lambda value: (not isinstance(value, int), _rank(value), str(value)))


def _rank(value: Hashable) -> int:
    return int(value) if isinstance(value, int) else 0


def _check_sizes(parts: Partition, section: PartitionSection) -> None:
    small = {client: len(part) for client, part in enumerate(parts) if len(part) < section.min_samples}
    if small:
        listed = ", ".join(f"client {client}: {size}" for client, size in sorted(small.items())[:8])
        raise FedftError(
            Code.TOO_FEW_SAMPLES,
            f"{len(small)} of {len(parts)} clients have fewer than {section.min_samples} samples ({listed})",
            hint="use fewer clients, a larger alpha, another seed, or lower data.partition.min_samples",
        )
