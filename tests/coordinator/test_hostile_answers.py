"""Whatever one client answers harms that client alone, down to the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message

from fedft.aggregation import RoundAggregator
from fedft.client.app import app as honest_app
from fedft.codecs import Manifest
from fedft.coordinator.broadcast import Broadcast
from fedft.coordinator.central_mechanism import ExactMean
from fedft.coordinator.collect import record_reply
from fedft.coordinator.evaluation import EvaluationPhase
from fedft.coordinator.exchange import Answer, Request
from fedft.store import RoundRecord, RunStore, UpdateRecord
from fedft.transport.flower_records import pack, unpack
from fedft.wire import (
    Evaluation,
    Hello,
    ModelRef,
    Refusal,
    Reply,
    RoundRef,
    Update,
    decode_reply,
    encode_reply,
    open_envelope,
    seal,
)
from tests.federation import run_inline, tiny_config
from tests.fuzz.mutate import GOLDEN, mutants

HOSTILE = 1
MOST = 2**64 - 1
Change = Callable[[Reply], Reply | Error]


def _hostile_app(kind: str, change: Change) -> Callable[[Message, Context], Message]:
    def app(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if message.metadata.message_type != kind or context.node_config["partition-id"] != HOSTILE:
            return reply
        changed = change(decode_reply(open_envelope(unpack(reply.content), max_bytes=2**24)))
        if isinstance(changed, Error):
            return Message(changed, reply_to=message)
        return Message(pack(seal(encode_reply(changed))), reply_to=message)

    return app


def _as_named(client: str) -> Change:
    def change(reply: Reply) -> Reply:
        assert isinstance(reply, Hello | Update)
        return replace(reply, client_id=client)

    return change


def _with(**values: Any) -> Change:
    return lambda reply: replace(reply, **values)


def _refuse(code: str, client: str = "client-001") -> Change:
    return lambda _reply: Refusal(RoundRef("", 0), code, "no", client)


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        ("query", _with(num_examples=MOST), "FEDFT-4007"),
        ("query", _refuse("made up"), "FEDFT-4007"),
        ("query", _refuse("FEDFT-7010", "client-000"), "FEDFT-7010"),
        ("query", _as_named("client-000"), "FEDFT-6103"),
        ("train", _with(num_examples=MOST), "FEDFT-4007"),
        ("train", _with(update_seq=MOST), "FEDFT-4007"),
        ("train", _with(metrics={"loss": 1e308}), "FEDFT-4007"),
        ("train", _refuse("'; DROP TABLE runs"), "FEDFT-4007"),
        ("train", lambda _: Error(code=1, reason="ray.exceptions.ActorDiedError"), ""),
    ],
)
@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_a_hostile_answer_costs_its_own_client_the_round_and_nobody_else(
    tmp_path: Path, kind: str, change: Change, code: str, weighting: str
) -> None:
    settings = {"rounds.min_clients": 2, "rounds.min_replies": 2, "rounds.weighting": weighting}
    config = tiny_config(tmp_path, **{**settings, "rounds.total": 1, "rounds.retries": 0})

    store, run = run_inline(config, client_app=_hostile_app(kind, change))

    greeted, trained = store.rounds(run.id)
    parts = {update.client: update for update in (greeted if kind == "query" else trained).updates}
    bad = [update for update in parts.values() if update.status != "accepted"]
    assert [update.code for update in bad] == [code]
    assert {"client-000", "client-002"} <= {u.client for u in trained.updates if u.status == "accepted"}


def test_a_hostile_evaluation_is_left_out_of_the_mean(tmp_path: Path) -> None:
    settings = {"evaluation.federated": True, "rounds.total": 1}
    honest_store, honest = run_inline(tiny_config(tmp_path, **settings))
    expected = [e for e in honest_store.rounds(honest.id)[1].evaluations if e.scope == "federated"]
    for change in (_with(num_examples=MOST), _with(metrics={"loss": 1e300})):
        store, run = run_inline(
            tiny_config(tmp_path, **settings), client_app=_hostile_app("evaluate", change)
        )
        found = [e for e in store.rounds(run.id)[1].evaluations if e.scope == "federated"]
        assert found[0].num_examples < expected[0].num_examples
        assert any("client-001" in event["message"] for event in store.events(run.id))


def test_an_error_without_a_code_in_reading_an_answer_refuses_that_client_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ExactMean.stated

    def broken(self: ExactMean, update: Update) -> Any:
        if update.client_id == "client-001":
            raise ZeroDivisionError("in the server's own code")
        return real(self, update)

    monkeypatch.setattr(ExactMean, "stated", broken)
    config = tiny_config(tmp_path, **{"rounds.min_replies": 2, "rounds.total": 1})
    store, run = run_inline(config)
    refused = [update for update in store.rounds(run.id)[1].updates if update.status == "refused"]
    assert [(update.client, update.code) for update in refused] == [("client-001", "FEDFT-6110")]


MANIFEST = Manifest.of({"R": np.zeros((16, 16), np.float32)})


def test_fuzzed_answers_go_through_to_a_committed_round(tmp_path: Path) -> None:
    """600 mutants of golden replies, resealed so that their hash holds, 60 of them a round."""
    seeds = [_payload(path.read_bytes()) for path in sorted(GOLDEN.glob("*.bin"))]
    seeds += [encode_reply(reply) for reply in _extreme()]
    answers = [seal(data) for data in mutants(seeds, 588, seed=11)] + [seal(data) for data in seeds[-12:]]
    store = RunStore(tmp_path)
    run = store.create_run("fuzz", "{}")
    statuses = set()
    for number in range(10):
        part = {f"client-{index:02d}": data for index, data in enumerate(answers[60 * number :][:60])}
        record = _round(number, part)
        store.commit_round(run.id, record, {"R": np.zeros((16, 16), np.float32)})
        statuses |= {update.code for update in record.updates}
    found = store.rounds(run.id)
    assert [len(record.updates) for record in found] == [60] * 10
    assert "FEDFT-6110" not in statuses, "an error without a code of its own"
    assert {"FEDFT-4002", "FEDFT-4007"} <= statuses


def _round(number: int, part: dict[str, bytes]) -> RoundRecord:
    aggregator = RoundAggregator(
        MANIFEST,
        round=RoundRef("run-7", 12),
        model=ModelRef("aa" * 32, "bb" * 32, "", "dd" * 32),
        cohort=list(part),
        weighting="uniform",
    )
    broadcast: Broadcast = None  # type: ignore[assignment]  # nobody is asked
    tally = EvaluationPhase(number, broadcast, [], 1 << 20)
    updates: list[UpdateRecord] = []
    for client, data in part.items():
        answer = Answer(Request(client, 1, b""), data)
        updates.append(record_reply(answer, aggregator, 1 << 20, lambda _update: None))
        tally.take(answer)
    return RoundRecord(number, "00" * 32, updates=tuple(updates), evaluations=tally.close()[0])


def _payload(envelope: bytes) -> bytes:
    return open_envelope(envelope, max_bytes=1 << 20)


def _extreme() -> list[Reply]:
    at, model = RoundRef("run-7", 2**32 - 1), ModelRef("", "", "", "")
    counts = (0, 2**40, 2**63, MOST)
    updates = [Update(at, model, "c", count, count, (), {"x": -1e100}) for count in counts]
    evaluations = [Evaluation(at, model, "c", count, {"loss": 1e100}) for count in counts]
    hellos = [Hello("c", "aa" * 32, count, 2**32 - 1, {}) for count in counts]
    return [*updates, *evaluations, *hellos]
