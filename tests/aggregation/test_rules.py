"""Aggregation rules beside plain references, and what they have in common."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import trim_mean

from fedft.aggregation import ExactAccumulator, UpdateAccepted
from fedft.aggregation.rules.mean import MEAN
from fedft.aggregation.rules.multi_krum import MULTI_KRUM, MultiKrum
from fedft.aggregation.rules.norm_bound import NORM_BOUND, NormBound
from fedft.aggregation.rules.robust import RobustRule, exact_mean
from fedft.aggregation.rules.trimmed import MEDIAN, TRIMMED_MEAN, TrimmedMean
from fedft.codecs import Manifest
from fedft.config.load import check
from fedft.errors import Code, FedftError
from fedft.registries import AGGREGATION_RULES
from tests.aggregation.conftest import MANIFEST, MakeAggregator, MakeUpdate, random_state

Rows = NDArray[np.float32]
ROBUST = [NORM_BOUND, NormBound(0.5), MEDIAN, TRIMMED_MEAN, TrimmedMean(2), MULTI_KRUM]


def rows(fewest: int = 5, most: int = 9) -> st.SearchStrategy[Rows]:
    """Updates with ties, zeros of both signs, and values from 1e-6 to 1,000."""
    values = st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5]),
        st.floats(-1000, 1000, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6),
    )
    shapes = st.tuples(st.integers(fewest, most), st.integers(1, 6))
    return shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=values))


def close(found: Rows, wanted: NDArray[np.float64], updates: Rows) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * float(np.abs(updates).max()) + 1e-12)


@settings(max_examples=60, deadline=None)
@given(rows(3))
def test_the_median_is_numpys(updates: Rows) -> None:
    close(MEDIAN.combine(updates).result, np.median(updates.astype(np.float64), axis=0), updates)


@settings(max_examples=60, deadline=None)
@given(rows(5), st.integers(1, 2))
def test_the_trimmed_mean_is_scipys(updates: Rows, cut: int) -> None:
    wanted = trim_mean(updates.astype(np.float64), (cut + 0.5) / len(updates), axis=0)
    close(TrimmedMean(cut).combine(updates).result, wanted, updates)


@settings(max_examples=60, deadline=None)
@given(rows(3), st.sampled_from([0.0, 0.25, 10.0]))
def test_norm_bounding_is_the_published_formula(updates: Rows, bound: float) -> None:
    """Σ uᵢ / max(1, ‖uᵢ‖ / M) / n."""
    exact = updates.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    limit = bound or float(np.median(norms))
    shares = np.array([1.0 if norm <= limit else limit / norm for norm in norms])

    combined = NormBound(bound).combine(updates)

    np.testing.assert_allclose(combined.kept, shares, rtol=1e-12)
    close(combined.result, (exact * shares[:, None]).mean(axis=0), updates)
    assert np.linalg.norm(combined.result.astype(np.float64)) <= limit * (1 + 1e-6) + 1e-12


def krum_by_the_book(updates: Rows, byzantine: int) -> tuple[NDArray[np.float64], set[int]]:
    """Scores by brute force in float64, and the rows of the n - f - 2 smallest."""
    count = len(updates)
    exact = updates.astype(np.float64)
    distances = ((exact[:, None] - exact[None]) ** 2).sum(axis=2)
    scores = [
        min(
            sum(distances[i, j] for j in chosen)
            for chosen in itertools.combinations([j for j in range(count) if j != i], count - byzantine - 2)
        )
        for i in range(count)
    ]
    best = sorted(range(count), key=lambda i: (scores[i], i))[: count - byzantine - 2]
    return exact[best].mean(axis=0), set(best)


@pytest.mark.parametrize(("count", "byzantine"), [(5, 1), (7, 1), (7, 2), (9, 3)])
def test_multi_krum_is_the_published_one(count: int, byzantine: int) -> None:
    for seed in range(5):
        updates = np.random.default_rng(seed).normal(0, 1, (count, 11)).astype(np.float32)
        wanted, best = krum_by_the_book(updates, byzantine)

        combined = MultiKrum(byzantine).combine(updates)

        assert set(np.flatnonzero(combined.kept)) == best
        close(combined.result, wanted, updates)


def test_krum_sums_the_distances_of_a_long_vector_in_blocks() -> None:
    updates = np.random.default_rng(1).normal(0, 1, (5, 200_001)).astype(np.float32)
    wanted, best = krum_by_the_book(updates, 1)
    assert set(np.flatnonzero(MULTI_KRUM.combine(updates).kept)) == best
    close(MULTI_KRUM.combine(updates).result, wanted, updates)


@pytest.mark.parametrize("rule", ROBUST, ids=repr)
@settings(max_examples=25, deadline=None)
@given(updates=rows(5, 7), order=st.randoms())
def test_no_order_of_arrival_changes_a_bit(rule: RobustRule, updates: Rows, order: Any) -> None:
    manifest = Manifest.of({"x": np.zeros(updates.shape[1], np.float32)})
    clients = [f"client-{index}" for index in range(len(updates))]
    results = []
    for arrival in (clients, order.sample(clients, len(clients))):
        collector = rule.collector(ExactAccumulator(manifest))
        for client in arrival:
            collector.add(client, Flat(updates[clients.index(client)]), 1)  # type: ignore[arg-type]
        results.append((collector.result()["x"].tobytes(), dict(collector.verdicts)))

    assert results[0] == results[1]
    assert all(0.0 <= verdict.kept <= 1.0 for verdict in results[0][1].values())


def test_of_equal_updates_the_same_clients_are_chosen_whoever_came_first() -> None:
    manifest = Manifest.of({"x": np.zeros(1, np.float32)})
    clients = [f"client-{index}" for index in range(6)]
    for arrival in (clients, clients[::-1]):
        collector = MULTI_KRUM.collector(ExactAccumulator(manifest))
        for client in arrival:
            collector.add(client, Flat(np.ones(1, np.float32)), 1)  # type: ignore[arg-type]
        collector.result()
        assert [client for client in clients if collector.verdicts[client].kept] == clients[:3]


class Flat:
    """A decoded update, of which the rules use nothing but its values."""

    def __init__(self, values: Rows) -> None:
        self._values = values

    def flat(self, manifest: Manifest) -> Rows:
        return self._values


@pytest.mark.parametrize("rule", [NORM_BOUND, MEDIAN, TRIMMED_MEAN], ids=repr)
@settings(max_examples=25, deadline=None)
@given(updates=rows(5, 7), order=st.randoms())
def test_whose_an_update_is_changes_nothing_of_the_result(
    rule: RobustRule, updates: Rows, order: Any
) -> None:
    shuffled = updates[order.sample(range(len(updates)), len(updates))]
    assert rule.combine(updates).result.tobytes() == rule.combine(shuffled).result.tobytes()


@settings(max_examples=40, deadline=None)
@given(rows(1))
def test_the_mean_at_the_end_is_the_exact_one(updates: Rows) -> None:
    manifest = Manifest.of({"x": updates[0]})
    accumulator = ExactAccumulator(manifest)
    for row in updates:
        accumulator.add({"x": row}, 1)
    assert exact_mean(updates, updates.shape[1]).tobytes() == accumulator.mean()["x"].tobytes()


@settings(max_examples=40, deadline=None)
@given(rows(5, 7), rows(1, 1))
def test_what_is_trimmed_lies_between_honest_values(honest: Rows, hostile: Rows) -> None:
    worst = np.resize(hostile, honest.shape[1]).astype(np.float32) * 2
    updates = np.concatenate([honest, worst[None]])
    for rule in (MEDIAN, TRIMMED_MEAN):
        found = rule.combine(updates).result
        assert (found >= honest.min(axis=0)).all()
        assert (found <= honest.max(axis=0)).all()


def round_of(rule: RobustRule, hostile: float) -> dict[str, float]:
    """Ten clients of which the last sends its update times a factor; the shares kept."""
    rng = np.random.default_rng(3)
    updates = (1.0 + rng.normal(0, 0.1, (10, 500))).astype(np.float32)
    updates[9] *= hostile
    combined = rule.combine(updates)
    honest = updates[:9].mean(axis=0)
    return {
        "error": float(np.linalg.norm(combined.result - honest) / np.linalg.norm(honest)),
        "hostile": float(combined.kept[9]),
        "honest": float(combined.kept[:9].mean()),
    }


@pytest.mark.parametrize(("rule", "factor"), [*itertools.product(ROBUST[2:], [1000.0, -1.0])], ids=repr)
def test_one_of_ten_cannot_rule_and_is_seen(rule: RobustRule, factor: float) -> None:
    found = round_of(rule, factor)
    assert found["error"] < 0.1
    assert found["hostile"] < 0.01
    assert found["hostile"] < found["honest"]


def test_a_norm_bound_takes_the_size_from_an_attack_and_not_its_direction() -> None:
    assert round_of(NORM_BOUND, 1000.0)["error"] < 0.03
    assert round_of(NORM_BOUND, 1000.0)["hostile"] < 0.002
    assert round_of(NORM_BOUND, -1.0)["error"] == pytest.approx(0.2, rel=0.1)


def test_of_equal_scores_the_smallest_keys_count() -> None:
    combined = MULTI_KRUM.combine(np.ones((6, 2), np.float32))
    assert combined.kept.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("rule", [NORM_BOUND, MEDIAN, TRIMMED_MEAN, MULTI_KRUM], ids=repr)
def test_a_round_asks_for_what_the_rule_assumes(
    rule: RobustRule, make_aggregator: MakeAggregator, make_update: MakeUpdate
) -> None:
    clients = [f"client-{letter}" for letter in "abcde"][: rule.fewest_updates]
    aggregator = make_aggregator(cohort=clients, weighting="uniform", rule=rule)
    with pytest.raises(FedftError, match="FEDFT-5014"):
        aggregator.result()
    for number, client in enumerate(clients):
        if number:
            with pytest.raises(FedftError, match=Code.RULE_NEEDS_MORE_UPDATES):
                aggregator.result()
        accepted = aggregator.offer(client, make_update(random_state(number), client_id=client))
        assert isinstance(accepted, UpdateAccepted)

    result = aggregator.result()

    assert {name: value.shape for name, value in result.items()} == {
        t.name: t.shape for t in MANIFEST.tensors
    }
    assert sorted(aggregator.verdicts) == clients
    assert aggregator.accumulator.count == 0


def test_the_mean_judges_nobody(make_aggregator: MakeAggregator, make_update: MakeUpdate) -> None:
    aggregator = make_aggregator()
    aggregator.offer("client-a", make_update())
    aggregator.result()
    assert (aggregator.verdicts, MEAN.needs_single_updates) == ({}, False)


def test_a_value_that_a_rotation_has_made_too_large_is_refused_alone(
    make_aggregator: MakeAggregator, make_update: MakeUpdate
) -> None:
    aggregator = make_aggregator(cohort={"client-a"}, weighting="uniform", rule=NORM_BOUND, max_abs=1e-4)
    refused = aggregator.offer("client-a", make_update())
    assert getattr(refused, "code", "") == Code.VALUE_OUT_OF_RANGE
    with pytest.raises(FedftError, match="FEDFT-5014"):
        aggregator.result()


ROBUST_NAMES = [name for name in AGGREGATION_RULES.built_in if name != "mean"]
TEN: dict[str, Any] = {"data": {"partition": {"clients": 10}}, "rounds": {"weighting": "uniform"}}


def robust(name: str, **sections: Any) -> dict[str, Any]:
    return {**TEN, "aggregation": {"rule": name}, **sections}


@pytest.mark.parametrize("name", ROBUST_NAMES)
@pytest.mark.parametrize(
    ("path", "sections"),
    [
        ("rounds.weighting", {"rounds": {"weighting": "examples"}}),
        ("aggregation.rule", {"privacy": {"mechanism": "client"}}),
        ("aggregation.rule", {"method": "fedit"}),
        ("aggregation.rule", {"privacy": {"mechanism": "example"}, "adapter": {"initialiser": "dp-sketch"}}),
    ],
)
def test_what_takes_the_ground_from_under_a_rule_is_refused(
    name: str, path: str, sections: dict[str, Any]
) -> None:
    check(robust(name))
    with pytest.raises(FedftError, match=rf"FEDFT-1003 1 mistake.*\n +{path}: "):
        check(robust(name, **sections))


@pytest.mark.parametrize(
    ("rule", "fewest"),
    [
        ({"rule": "median"}, 3),
        ({"rule": "norm-bound"}, 3),
        ({"rule": "norm-bound", "max_norm": 0.5}, 1),
        ({"rule": "trimmed-mean", "byzantine": 2}, 5),
        ({"rule": "multi-krum", "byzantine": 2}, 7),
    ],
)
def test_too_few_clients_for_a_rule_are_refused_before_a_run(rule: dict[str, Any], fewest: int) -> None:
    def asked(clients: int, cohort: int = 0) -> dict[str, Any]:
        rounds = {"weighting": "uniform", "cohort": cohort}
        return {"data": {"partition": {"clients": clients}}, "rounds": rounds, "aggregation": rule}

    check(asked(fewest))
    for table in [asked(fewest - 1)] * (fewest > 1) + [asked(10, fewest - 1)] * (fewest > 1):
        with pytest.raises(FedftError, match=rf"aggregation.rule: .* needs {fewest} updates"):
            check(table)


def test_every_built_in_rule_says_what_it_is() -> None:
    rules = [AGGREGATION_RULES.get(name) for name in AGGREGATION_RULES.built_in]
    assert [rule.name for rule in rules] == list(AGGREGATION_RULES.built_in)
    singles: Sequence[bool] = [rule.needs_single_updates for rule in rules]
    assert singles == [False, True, True, True, True]
