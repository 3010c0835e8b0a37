"""Runs in which one client of five is hostile, under each aggregation rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from fedft.client.app import app as honest_app
from fedft.codecs import CodecContext, Manifest, decode, make_codec
from fedft.config.load import from_json
from fedft.errors import FedftError
from fedft.report import facts
from fedft.report.page import render
from fedft.store import RunRecord, RunStore
from fedft.transport.flower_records import pack, unpack
from fedft.wire import Update, decode_reply, encode_reply, open_envelope, seal
from tests.federation import run_inline, tiny_config

FIVE: dict[str, Any] = {
    "data.partition.clients": 5,
    "rounds.weighting": "uniform",
    "codec.name": "dense",
    "rounds.total": 2,
    "evaluation.every": 0,
}
HOSTILE = "client-004"
App = Callable[[Message, Context], Message]


def scaled(manifest: Callable[[], Manifest], factor: float) -> App:
    """The product's client, of which the last of five multiplies every update."""

    def app(message: Message, context: Context) -> Message:
        answer = honest_app(message, context)
        reply = decode_reply(open_envelope(unpack(answer.content), max_bytes=1 << 24))
        if not isinstance(reply, Update) or context.node_config["partition-id"] != 4:
            return answer
        honest = decode(reply.shards, manifest(), CodecContext())
        worse = {name: (factor * value).astype(np.float32) for name, value in honest.items()}
        shards = tuple(make_codec("dense").encode(worse, manifest(), CodecContext()))
        sealed = seal(encode_reply(replace(reply, shards=shards)))
        return Message(pack(sealed), reply_to=message)

    return app


def run(folder: Path, rule: str, factor: float = 1.0, **settings: Any) -> tuple[RunStore, RunRecord]:
    config = tiny_config(folder, **(FIVE | {"aggregation.rule": rule} | settings))
    store = RunStore(config.store.path)

    def manifest() -> Manifest:
        return Manifest.of(store.state(store.runs()[-1].id, 0))

    return run_inline(config, store=store, client_app=scaled(manifest, factor))


def state(store: RunStore, record: RunRecord) -> np.ndarray:
    arrays = store.state(record.id, 2)
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


@pytest.mark.parametrize("rule", ["norm-bound", "median", "trimmed-mean", "multi-krum"])
def test_one_hostile_client_of_five_moves_the_model_little_and_stands_out(rule: str, tmp_path: Path) -> None:
    honest = state(*run(tmp_path, "mean"))
    poisoned = state(*run(tmp_path, "mean", 100.0))
    store, record = run(tmp_path, rule, 100.0)

    assert np.linalg.norm(state(store, record) - honest) < 0.1 * np.linalg.norm(poisoned - honest)
    rounds = store.rounds(record.id)
    judged = {update.client: update for update in rounds[1].updates}
    honest_kept = [judged[client].kept or 0.0 for client in judged if client != HOSTILE]
    assert (judged[HOSTILE].kept or 0.0) < np.mean(honest_kept)
    standings = facts.standings(rounds)
    assert [standings[0].client, standings[0].rounds, len(standings)] == [HOSTILE, 2, 5]
    assert standings[0].distance > 10
    page = render(record, rounds, [])
    assert f"Robust aggregation: {rule}" in page


def test_with_the_mean_nobody_is_judged(tmp_path: Path) -> None:
    store, record = run(tmp_path, "mean")
    rounds = store.rounds(record.id)
    assert facts.standings(rounds) == []
    assert {update.kept for item in rounds for update in item.updates} == {None}
    assert "Robust aggregation" not in render(record, rounds, [])


def test_a_round_without_the_updates_that_the_rule_assumes_is_not_committed(tmp_path: Path) -> None:
    """Krum with one hostile client assumes five updates; a fifth that is refused leaves four."""
    with pytest.raises(FedftError, match="FEDFT-6102 round 1 got 4 of the 5 updates"):
        run(tmp_path, "multi-krum", 1e6, **{"rounds.min_replies": 2})
    store = RunStore(tmp_path / "store")
    assert from_json(store.runs()[-1].config).rounds.min_replies == 2
    assert store.last_round(store.runs()[-1].id) == 0
