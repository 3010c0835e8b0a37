from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.config.schema import PartitionSection
from fedft.data.partition import partition
from fedft.data.records import Records
from fedft.errors import FedftError


def records_of(labels: list[Any]) -> Records:
    rows = tuple({"label": label, "site": f"site-{i % 3}"} for i, label in enumerate(labels))
    return Records(rows, tuple(f"file-{i % 2}" for i in range(len(rows))))


def section(**values: Any) -> PartitionSection:
    return PartitionSection(**{"min_samples": 0, **values})


@given(
    kind=st.sampled_from(["iid", "dirichlet", "field", "files"]),
    labels=st.lists(st.integers(0, 4), min_size=6, max_size=80),
    clients=st.integers(1, 6),
    alpha=st.floats(0.05, 50),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=150, deadline=None)
def test_every_sample_goes_to_exactly_one_client(
    kind: str, labels: list[int], clients: int, alpha: float, seed: int
) -> None:
    clients = {"field": min(clients, 3), "files": 2}.get(kind, clients)
    chosen = section(kind=kind, clients=clients, alpha=alpha, field="site" if kind == "field" else "")
    parts = partition(records_of(labels), chosen, seed, "label")
    assert len(parts) == clients
    assert sorted(index for part in parts for index in part) == list(range(len(labels)))
    assert all(part == sorted(part) for part in parts)
    assert parts == partition(records_of(labels), chosen, seed, "label")


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = [len(part) for part in partition(records_of([0] * 103), section(kind="iid", clients=10), 3)]
    assert set(sizes) == {10, 11}


def test_random_partitions_depend_on_the_seed() -> None:
    records = records_of([i % 2 for i in range(100)])
    for kind in ("iid", "dirichlet"):
        parts = [partition(records, section(kind=kind), seed, "label") for seed in (1, 2)]
        assert parts[0] != parts[1]


def test_dirichlet_is_skewed_for_small_alpha_and_even_for_large() -> None:
    records = records_of([i % 2 for i in range(4000)])

    def skew(alpha: float) -> float:
        parts = partition(records, section(kind="dirichlet", clients=4, alpha=alpha), 5, "label")
        ones: list[float] = [sum(records[i]["label"] for i in part) / max(1, len(part)) for part in parts]
        return max(ones) - min(ones)

    assert skew(0.1) > 0.5
    assert skew(10_000) < 0.05


def test_dirichlet_shares_have_the_distribution_they_are_named_after() -> None:
    """Mean 1/k and variance (1/k)(1 - 1/k)/(k alpha + 1) of a Dirichlet(alpha) component."""
    records = records_of([0] * 1000)
    k, alpha = 4, 0.5
    shares = [
        len(partition(records, section(kind="dirichlet", clients=k, alpha=alpha), seed, "label")[0]) / 1000
        for seed in range(800)
    ]
    mean = sum(shares) / len(shares)
    variance = sum((share - mean) ** 2 for share in shares) / len(shares)
    assert mean == pytest.approx(1 / k, abs=0.03)
    assert variance == pytest.approx((1 / k) * (1 - 1 / k) / (k * alpha + 1), rel=0.15)


def test_field_deals_sorted_values_round_robin() -> None:
    labels = ["d", "a", "c", "b", "a", "e"]
    parts = partition(records_of(labels), section(kind="field", clients=2, field="label"), 0)
    assert [{labels[i] for i in part} for part in parts] == [{"a", "c", "e"}, {"b", "d"}]


def test_integers_are_sorted_by_size() -> None:
    labels = [10, 9, 2, 10]
    parts = partition(records_of(labels), section(kind="field", clients=3, field="label"), 0)
    assert [{labels[i] for i in part} for part in parts] == [{2}, {9}, {10}]


def test_files_gives_each_file_to_one_client() -> None:
    records = records_of([0] * 9)
    parts = partition(records, section(kind="files", clients=2), 0)
    assert [Counter(records.origins[i] for i in part) for part in parts] == [{"file-0": 5}, {"file-1": 4}]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"kind": "files", "clients": 3}, "FEDFT-3011"),
        ({"kind": "field", "clients": 4, "field": "site"}, "FEDFT-3011"),
        ({"kind": "field", "clients": 2, "field": "none"}, "FEDFT-3005"),
        ({"kind": "iid", "clients": 20, "min_samples": 1}, "FEDFT-3010"),
        ({"kind": "dirichlet", "clients": 4, "alpha": 0.01, "min_samples": 3}, "FEDFT-3010"),
    ],
)
def test_partitions_that_cannot_be_made(values: dict[str, Any], code: str) -> None:
    with pytest.raises(FedftError) as caught:
        partition(records_of([0, 1] * 5), section(**values), 0, "label")
    assert caught.value.code == code
