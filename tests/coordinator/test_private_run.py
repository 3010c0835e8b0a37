"""Whole private runs over the inline carrier, with the product's own clients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.adapters import FrameSet
from fedft.aggregation import RoundAggregator
from fedft.client.app import app
from fedft.client.worker.answer import process_worker
from fedft.codecs import Manifest
from fedft.config.load import to_json
from fedft.coordinator.central_mechanism import central_mechanism
from fedft.coordinator.collect import record_reply
from fedft.coordinator.exchange import Answer, Request
from fedft.errors import FedftError
from fedft.privacy.accounting.accountants import claim
from fedft.privacy.accounting.events import merge
from fedft.privacy.site.ledger import Ledger
from fedft.report.page import render
from fedft.report.spending import spending
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.store import RunRecord, RunStore, UpdateRecord
from fedft.training.private_schedule import private_rounds, private_sketch_of
from fedft.wire import Update, encode_reply, seal
from tests.federation import run_inline, tiny_config

PRIVATE = {
    "privacy.mechanism": "example",
    "privacy.epsilon": 5.0,
    "privacy.delta": 1e-3,
    "rounds.weighting": "uniform",
    "rounds.min_clients": 2,
}
CLIENTS = ("client-000", "client-001", "client-002")


def ledger(state: Path, run: RunRecord, client: str) -> Ledger:
    return Ledger(state / "ledgers" / run.id / client / "ledger.sqlite")


def updates(store: RunStore, run: RunRecord) -> list[tuple[int, UpdateRecord]]:
    return [(r.round, update) for r in store.rounds(run.id) if r.round for update in r.updates]


def spend(state: Path, run_id: str, client: str, rounds: int, config: Any) -> None:
    """Charge a client's ledger as an earlier run on the same data would have."""
    from fedft.client.site.enforcement import PolicyEnforcer
    from fedft.client.site.identity import ClientIdentity
    from fedft.training.model_runtime import ModelRuntime

    identity = ClientIdentity(CLIENTS.index(client), 3)
    runtime, enforcer = ModelRuntime(config), PolicyEnforcer.of(identity, config, run_id)
    plan = private_rounds(config, runtime.data.records.count(identity.partition))
    fingerprint, examples = runtime.data.records.fingerprint(identity.partition)
    assert enforcer.ledger is not None
    enforcer.ledger.parent.mkdir(parents=True)
    book = Ledger.create(enforcer.ledger)
    book.enrol("train", fingerprint, examples)
    assert enforcer.policy is not None
    for number in range(rounds):
        book.charge(
            "train",
            plan.event(),
            enforcer.policy.budget("train"),
            run="old",
            round_number=number,
        )


def test_the_ledgers_hold_what_the_accountant_says_of_the_configuration(tmp_path: Path, state: Path) -> None:
    config = tiny_config(tmp_path, **PRIVATE)
    store, run = run_inline(config)

    whole = private_rounds(config, 30).run_event()
    expected = claim([whole], 1e-3).epsilon
    assert 4.95 < expected <= 5.0
    for client in CLIENTS:
        assert ledger(state, run, client).events("train") == [whole]
    assert ledger(state, run, CLIENTS[0]).claim("train", 1e-3).epsilon == expected
    last = [update for number, update in updates(store, run) if number == 3]
    stated = [update.privacy for update in last]
    assert [s.epsilon for s in stated if s] == pytest.approx([expected] * 3, rel=1e-3)
    assert {update.weight for update in last} == {1}
    assert {update.num_examples for update in last} == {0}


def test_two_runs_of_one_seed_differ_for_their_noise_does(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **PRIVATE, **{"rounds.total": 1, "data.partition.clients": 2})

    assert run_inline(config)[1].final_digest != run_inline(config)[1].final_digest


def test_a_client_whose_budget_is_spent_is_asked_no_more(tmp_path: Path, state: Path) -> None:
    config = tiny_config(tmp_path, **PRIVATE)
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    spend(state, run.id, "client-001", 2, config)
    run_inline(config, store=store, run=run)

    asked = [
        (number, update.status, update.code)
        for number, update in updates(store, run)
        if update.client == "client-001"
    ]
    assert asked == [(1, "accepted", ""), (2, "refused", "FEDFT-8207")]
    rows = {row.client: row for row in spending(store.rounds(run.id))}
    assert [rows[client].spent_in for client in CLIENTS] == [0, 2, 0]
    assert [rows[client].rounds for client in CLIENTS] == [3, 1, 3]
    assert rows["client-000"].steps == 6
    paid = rows["client-000"].statement
    assert paid is not None
    page = " ".join(render(run, store.rounds(run.id), store.events(run.id)).split())
    assert "spent, refused round 2" in page
    assert f"<td>{paid.epsilon:.3f}</td>" in page
    kinds = [event["kind"] for event in store.events(run.id)]
    assert kinds.count("budget-spent") == 1
    assert store.run(run.id).status == "completed"


def test_a_run_with_too_few_clients_left_ends_and_says_why(tmp_path: Path, state: Path) -> None:
    config = tiny_config(tmp_path, **PRIVATE)
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    for client in CLIENTS[:2]:
        spend(state, run.id, client, 2, config)
    with pytest.raises(FedftError) as error:
        run_inline(config, store=store, run=run)

    assert error.value.code == "FEDFT-6108"
    assert "spent: client-000, client-001" in error.value.message
    assert store.last_round(run.id) == 1
    assert "FEDFT-6108" in store.run(run.id).error


def test_a_resumed_round_is_answered_with_what_was_charged(tmp_path: Path, state: Path) -> None:
    config = tiny_config(tmp_path, **PRIVATE)

    asked = 0

    def stopping(message: Any, context: Any) -> Any:
        nonlocal asked
        asked += message.metadata.message_type == "train"
        reply = app(message, context)
        if asked == 5:  # the second answer of round 2 has been charged and is lost with the server
            raise SystemExit
        return reply

    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    with pytest.raises(SystemExit):
        run_inline(config, client_app=stopping, store=store, run=run)
    process_worker.cache_clear()
    run_inline(config, store=store, run=store.run(run.id))

    assert store.run(run.id).status == "completed"
    for client in CLIENTS:
        rounds = [e.body["round"] for e in ledger(state, run, client).entries() if e.body["kind"] == "charge"]
        assert rounds == [1, 2, 3]


SKETCHED = PRIVATE | {"adapter.initialiser": "dp-sketch", "adapter.samples": 10, "rounds.total": 2}


def test_a_frame_of_sketches_is_charged_before_the_rounds(tmp_path: Path, state: Path) -> None:
    config = tiny_config(tmp_path, **SKETCHED)
    store, run = run_inline(config)

    sketch, rounds = private_sketch_of(config, 30), private_rounds(config, 30)
    assert sketch is not None
    assert claim([sketch.event()], 1e-3).epsilon <= 0.3 * 5.0
    assert 4.95 < claim([sketch.event(), rounds.run_event()], 1e-3).epsilon <= 5.0
    for client in CLIENTS:
        book = ledger(state, run, client)
        charged = [e.body["round"] for e in book.entries() if e.body["kind"] == "charge"]
        assert charged == [0, 1, 2]
        assert book.events("train") == merge([sketch.event(), rounds.run_event()])
    first = store.rounds(run.id)[0]
    assert {round(update.privacy.epsilon, 2) for update in first.updates if update.privacy} == {1.5}
    frames = FrameSet.from_bytes(store.read_frame(store.run(run.id).frame_digest))
    assert all(not frame.r0.any() for frame in frames.values())
    assert len(frames) == 14


def test_sketches_are_made_once_however_often_the_server_starts(tmp_path: Path, state: Path) -> None:
    config = tiny_config(tmp_path, **SKETCHED)
    asked = 0

    def stopping(message: Any, context: Any) -> Any:
        nonlocal asked
        asked += message.metadata.message_type == "train"
        reply = app(message, context)
        if asked == 2:  # the second sketch has been charged and is lost with the server
            raise SystemExit
        return reply

    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    with pytest.raises(SystemExit):
        run_inline(config, client_app=stopping, store=store, run=run)
    process_worker.cache_clear()
    run_inline(config, store=store, run=store.run(run.id))

    for client in CLIENTS:
        rounds = [e.body["round"] for e in ledger(state, run, client).entries() if e.body["kind"] == "charge"]
        assert rounds == [0, 1, 2]


def test_too_few_sketches_end_the_run(tmp_path: Path, state: Path) -> None:
    config = tiny_config(tmp_path, **SKETCHED)
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    without_sketch = tiny_config(tmp_path, **SKETCHED | {"adapter.initialiser": "random"})
    for client in CLIENTS[:2]:
        spend(state, run.id, client, 2, without_sketch)
    with pytest.raises(FedftError, match="FEDFT-6109") as error:
        run_inline(config, store=store, run=run)

    assert "client-000: FEDFT-8207" in error.value.message


STATED = PrivacyStatement(PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE, 1.0, 1.0, 0.1, 2, 3.0, 1e-3, "pld")


@pytest.mark.parametrize(
    "statement",
    [
        None,
        replace(STATED, unit=PrivacyUnit.CLIENT),
        replace(STATED, max_norm=2.0),
        replace(STATED, delta=1e-2),
    ],
)
def test_an_update_without_the_statement_that_was_asked_for_is_refused(
    statement: PrivacyStatement | None, tmp_path: Path
) -> None:
    from tests.wire.samples import MODEL, ROUND

    reply = Update(ROUND, MODEL, "client-a", 1, 0, (), {}, statement)
    answer = Answer(Request("client-a", 1, b""), seal(encode_reply(reply)))
    aggregator: RoundAggregator = None  # type: ignore[assignment]  # is not reached
    config, store = tiny_config(tmp_path, **PRIVATE), RunStore(tmp_path / "store")
    mechanism = central_mechanism(config, "run-1", store, Manifest.of({"r": np.zeros(1, np.float32)}))
    record = record_reply(answer, aggregator, 1 << 20, mechanism.stated)

    assert (record.status, record.code) == ("refused", "FEDFT-5017")
