from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedft.aggregation import RoundAggregator, UpdateAccepted, UpdateRejected
from fedft.codecs import CodecContext, CodecSpec, Manifest, Shard, make_codec
from fedft.codecs.spec import DenseParams
from fedft.wire import RoundRef, Update
from tests.aggregation.conftest import (
    CLIENT,
    MANIFEST,
    MODEL,
    MakeAggregator,
    MakeUpdate,
    State,
    random_state,
)


def poisoned(value: float) -> tuple[Shard, ...]:
    """Shards with one bad value, as no codec of ours would make them."""
    blob = bytearray(make_codec("dense").encode(random_state(1), MANIFEST, CodecContext())[0].blob)
    blob[8:12] = np.float32(value).tobytes()
    return (with_blob(bytes(blob)),)


def with_blob(blob: bytes) -> Shard:
    shard = make_codec("dense").encode(random_state(1), MANIFEST, CodecContext())[0]
    return dataclasses.replace(shard, blob=blob)


def encoded(state: State) -> tuple[Shard, ...]:
    return tuple(make_codec("dense").encode(state, Manifest.of(state), CodecContext()))


def renamed(new: str) -> State:
    state = random_state(1)
    state[new] = state.pop("layer.1.R")
    return state


def refusal(aggregator: RoundAggregator, update: Update, client_key: str = CLIENT) -> str:
    """The code with which the update is refused."""
    verdict = aggregator.offer(client_key, update)
    assert isinstance(verdict, UpdateRejected)
    return verdict.code


REFUSALS: dict[str, tuple[str, dict[str, object]]] = {
    "not a number": ("FEDFT-4014", {"shards": poisoned(np.nan)}),
    "infinity": ("FEDFT-4014", {"shards": poisoned(-np.inf)}),
    "too large": ("FEDFT-5010", {"shards": poisoned(2048.0)}),
    "truncated": ("FEDFT-4013", {"shards": (with_blob(b"\0" * 8),)}),
    "wrong shape": (
        "FEDFT-4013",
        {"shards": encoded(random_state(1) | {"layer.1.R": np.zeros((4, 5), "f4")})},
    ),
    "wrong name": (
        "FEDFT-5004",
        {"model": dataclasses.replace(MODEL, manifest_digest=Manifest.of(renamed("layer.9.R")).digest())},
    ),
    "no shards": ("FEDFT-4012", {"shards": ()}),
    "twice the shards": ("FEDFT-4012", {"shards": encoded(random_state(1)) * 2}),
    "more tensors than exist": (
        "FEDFT-4012",
        {"shards": (dataclasses.replace(encoded(random_state(1))[0], tensor_count=4),)},
    ),
    "wrong round": ("FEDFT-5001", {"round": RoundRef("run-1", 4)}),
    "wrong run": ("FEDFT-5001", {"round": RoundRef("run-2", 3)}),
    "wrong base": ("FEDFT-5002", {"model": dataclasses.replace(MODEL, base_digest="00" * 32)}),
    "wrong frame": ("FEDFT-5003", {"model": dataclasses.replace(MODEL, frame_digest="00" * 32)}),
    "wrong state": ("FEDFT-5005", {"model": dataclasses.replace(MODEL, global_state_digest="00" * 32)}),
    "zero weight": ("FEDFT-5008", {"num_examples": 0}),
    "weight over the cap": ("FEDFT-5009", {"num_examples": 1001}),
    "another's name": ("FEDFT-5007", {"client_id": "client-b"}),
    "unknown codec": (
        "FEDFT-4010",
        {"shards": (dataclasses.replace(with_blob(b""), codec=CodecSpec(99, 1, DenseParams("float32"))),)},
    ),
    "unknown codec version": (
        "FEDFT-4010",
        {"shards": (dataclasses.replace(with_blob(b""), codec=CodecSpec(1, 9, DenseParams("float32"))),)},
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_with_a_code_counted_and_without_harm(
    case: str, make_aggregator: MakeAggregator, make_update: MakeUpdate
) -> None:
    code, changes = REFUSALS[case]
    aggregator = make_aggregator()
    good = make_update(client_id="client-b")
    accepted = aggregator.offer("client-b", good)
    assert isinstance(accepted, UpdateAccepted)
    assert accepted.weight == 10
    assert accepted.norm == pytest.approx(0.06, rel=0.5)
    before = aggregator.accumulator.digest()

    verdict = aggregator.offer(CLIENT, make_update(**changes))

    assert isinstance(verdict, UpdateRejected)
    assert verdict.code == code
    assert aggregator.refusals == {code: 1}
    assert aggregator.accumulator.digest() == before
    assert isinstance(aggregator.offer(CLIENT, make_update()), UpdateAccepted), (
        "a refusal does not bar the client"
    )


def test_a_client_counts_once(make_aggregator: MakeAggregator, make_update: MakeUpdate) -> None:
    aggregator = make_aggregator()
    aggregator.offer(CLIENT, make_update())
    before = aggregator.accumulator.digest()
    assert refusal(aggregator, make_update(update_seq=1)) == "FEDFT-5015"
    assert aggregator.accumulator.digest() == before
    assert aggregator.counted == {CLIENT}


def test_a_stranger_is_refused(make_aggregator: MakeAggregator, make_update: MakeUpdate) -> None:
    assert refusal(make_aggregator(), make_update(client_id="client-z"), "client-z") == "FEDFT-5006"


def test_norm_limit(make_aggregator: MakeAggregator, make_update: MakeUpdate) -> None:
    state = random_state(1)
    norm = float(np.sqrt(sum(np.square(value.astype(np.float64)).sum() for value in state.values())))
    assert refusal(make_aggregator(max_norm=norm * 0.999), make_update()) == "FEDFT-5016"
    accepted = make_aggregator(max_norm=norm * 1.001).offer(CLIENT, make_update())
    assert isinstance(accepted, UpdateAccepted)
    assert accepted.norm == pytest.approx(norm)


def test_a_codec_that_the_round_does_not_accept(
    make_aggregator: MakeAggregator, make_update: MakeUpdate
) -> None:
    aggregator = make_aggregator(accepted=[make_codec("bf16").spec])
    assert refusal(aggregator, make_update()) == "FEDFT-4017"
    assert isinstance(aggregator.offer(CLIENT, make_update(codec="bf16")), UpdateAccepted)


@pytest.mark.parametrize("codec", ["dense", "ternary", "bf16"])
def test_a_witness_sees_what_counts_and_nothing_else(
    codec: str, make_aggregator: MakeAggregator, make_update: MakeUpdate
) -> None:
    seen: list[tuple[dict[str, np.ndarray], int]] = []
    aggregator = make_aggregator(witness=lambda arrays, weight: seen.append((arrays, weight)))
    alone = make_aggregator()
    for target in (aggregator, alone):
        target.offer(CLIENT, make_update(num_examples=0))
        target.offer(CLIENT, make_update(codec=codec, num_examples=7))
        target.offer(CLIENT, make_update(codec=codec, num_examples=7))

    ((arrays, weight),) = seen
    assert weight == 7
    for name, value in alone.result().items():
        np.testing.assert_allclose(arrays[name], value, rtol=1e-5, atol=1e-8)
    assert aggregator.accumulator.digest() == alone.accumulator.digest()


def test_weighting_by_examples(make_aggregator: MakeAggregator, make_update: MakeUpdate) -> None:
    aggregator = make_aggregator()
    a, b = random_state(1), random_state(2)
    aggregator.offer(CLIENT, make_update(a, num_examples=30))
    aggregator.offer("client-b", make_update(b, num_examples=10, client_id="client-b"))
    for name, value in aggregator.result().items():
        expected = (30 * a[name].astype(np.float64) + 10 * b[name].astype(np.float64)) / 40
        assert np.array_equal(value, expected.astype(np.float32))


def test_uniform_weighting_ignores_a_withheld_count(
    make_aggregator: MakeAggregator, make_update: MakeUpdate
) -> None:
    aggregator = make_aggregator(weighting="uniform")
    a, b = random_state(1), random_state(2)
    accepted = aggregator.offer(CLIENT, make_update(a, num_examples=0))
    assert isinstance(accepted, UpdateAccepted)
    assert accepted.weight == 1
    aggregator.offer("client-b", make_update(b, num_examples=500, client_id="client-b"))
    for name, value in aggregator.result().items():
        expected = (a[name].astype(np.float64) + b[name].astype(np.float64)) / 2
        assert np.array_equal(value, expected.astype(np.float32))
