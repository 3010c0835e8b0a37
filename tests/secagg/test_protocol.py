"""Whole rounds: the exact plain sum for every size and all drop-outs up to the limit; nothing beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.errors import FedftError
from fedft.secagg.session import smallest_threshold
from tests.secagg.federation import Dropouts, Federation, plain_sum, random_vectors

SIZES = st.one_of(st.integers(3, 12), st.sampled_from([25, 40]))


@st.composite
def rounds_with_dropouts(draw: st.DrawFn) -> tuple[int, int, Dropouts]:
    """A number of clients, a threshold, and drop-outs spread over the steps, as many as it allows."""
    count = draw(SIZES)
    threshold = draw(st.integers(smallest_threshold(count), count))
    gone = draw(st.permutations(range(count)))[: draw(st.integers(0, count - threshold))]
    steps = [draw(st.integers(0, 4)) for _ in gone]
    lists = [[member for member, step in zip(gone, steps, strict=True) if step == at] for at in range(5)]
    return count, threshold, Dropouts(*lists)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(case=rounds_with_dropouts(), largest=st.sampled_from([1, 2, 14, 254]), seed=st.integers(0, 2**32))
def test_the_sum_is_exactly_the_plain_one(case: tuple[int, int, Dropouts], largest: int, seed: int) -> None:
    count, threshold, dropouts = case
    federation = Federation(count, threshold=threshold, restarts=seed % 3 == 0)
    vectors = random_vectors(count, 333, largest, seed)

    federation.exchange_keys(dropouts)
    result = federation.sum(vectors, largest, dropouts=dropouts)

    absent = {*dropouts.keys, *dropouts.shares, *dropouts.masked}
    assert set(result.survivors) == set(range(count)) - absent
    assert np.array_equal(result.digits, plain_sum(vectors, result.survivors))


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(count=st.integers(41, 100), seed=st.integers(0, 2**32))
def test_the_sum_of_many_clients_is_exactly_the_plain_one(count: int, seed: int) -> None:
    federation = Federation(count)
    rng = np.random.default_rng(seed)
    gone = rng.permutation(count)[: federation.session.max_dropouts].tolist()
    third = len(gone) // 3
    dropouts = Dropouts(keys=gone[:third], masked=gone[third : 2 * third], unmask=gone[2 * third :])
    vectors = random_vectors(count, 200, 2, seed)

    federation.exchange_keys(dropouts)
    result = federation.sum(vectors, 2, dropouts=dropouts)

    assert set(result.survivors) == set(range(count)) - set(gone[: 2 * third])
    assert np.array_equal(result.digits, plain_sum(vectors, result.survivors))


@pytest.mark.slow
def test_a_hundred_clients_a_third_of_whom_drop_out_on_the_way() -> None:
    federation = Federation(100)
    vectors = random_vectors(100, 1000, 2, 5)
    dropouts = Dropouts([0, 50], range(1, 6), range(10, 26), range(30, 35), range(90, 95))

    federation.exchange_keys(dropouts)
    result = federation.sum(vectors, 2, dropouts=dropouts)

    assert len(result.survivors) == 77
    assert np.array_equal(result.digits, plain_sum(vectors, result.survivors))


@pytest.mark.parametrize("step", ["keys", "shares", "masked", "attest", "unmask"])
@pytest.mark.parametrize("count", [3, 4, 10])
def test_one_dropout_too_many_ends_the_round(step: str, count: int) -> None:
    federation = Federation(count)
    allowed = federation.session.max_dropouts
    # Signing is a step of its own only after a drop-out, which then is one of those too many.
    dropouts = Dropouts(**{step: range(allowed + 1)})
    if step == "attest":
        dropouts = Dropouts(masked=range(min(1, allowed)), attest=range(allowed + 1))
    vectors = random_vectors(count, 50, 2, 1)

    if step in ("keys", "shares"):
        with pytest.raises(FedftError, match="FEDFT-8822"):
            federation.exchange_keys(dropouts)
        return
    federation.exchange_keys()
    with pytest.raises(FedftError, match="FEDFT-8822"):
        federation.sum(vectors, 2, dropouts=dropouts)
    assert len(federation.traffic.replies) < federation.session.threshold


@pytest.mark.parametrize("restarts", [False, True])
def test_one_key_exchange_serves_several_rounds_with_other_dropouts_in_each(restarts: bool) -> None:
    federation = Federation(7, rounds=3, restarts=restarts)
    federation.exchange_keys()

    for round, gone in ((7, [0]), (9, [5, 6]), (8, [])):
        vectors = random_vectors(7, 100, 14, round)
        result = federation.sum(vectors, 14, round=round, dropouts=Dropouts(masked=gone))
        assert set(result.survivors) == set(range(7)) - set(gone)
        assert np.array_equal(result.digits, plain_sum(vectors, result.survivors))


def test_a_round_without_dropouts_takes_two_answers_of_each_client() -> None:
    federation = Federation(5)
    federation.exchange_keys()

    federation.sum(random_vectors(5, 10, 2, 0), 2)

    assert all(not any(step == "signed" for step, _ in journal._entries) for journal in federation.journals)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rounds"), [(10, 1), (10, 4), (100, 1)])
def test_bytes_of_a_client_beside_its_vector(count: int, rounds: int) -> None:
    """At most 150 for each neighbour and round, keys and drop-outs included."""
    federation = Federation(count, rounds=rounds)
    vectors = random_vectors(count, 64, 2, 0)
    federation.exchange_keys()
    gone = range(federation.session.max_dropouts)

    for round in range(7, 7 + rounds):
        federation.sum(vectors, 2, round=round, dropouts=Dropouts(masked=gone))

    words = rounds * len(federation.traffic.masked[count - 1].words)
    assert max(federation.upload) - words <= 150 * (count - 1) * rounds
