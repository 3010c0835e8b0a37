"""Whole runs with secure aggregation: the plain sum's bits, clients lost in every step, servers restarted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from fedft.client.app import app as honest_app
from fedft.config.load import to_json
from fedft.errors import FedftError
from fedft.report.page import render
from fedft.store import RoundRecord, RunStore
from fedft.transport.flower_records import pack, unpack
from fedft.wire import Hello, InstructionKind, Update, decode_reply, encode_reply, open_envelope, seal
from tests.coordinator.masked import (
    assert_plain_sums,
    client_of,
    instruction_of,
    killed,
    masked_config,
    plain_digits,
    restarted,
)
from tests.federation import run_inline

STEPS = [
    InstructionKind.ADVERTISE,
    InstructionKind.SHARE,
    InstructionKind.RECEIVE,
    InstructionKind.TRAIN,
    InstructionKind.ATTEST,
    InstructionKind.UNMASK,
]


def survivors(record: RoundRecord) -> list[str]:
    return [update.client for update in record.updates if update.status == "accepted"]


@pytest.mark.parametrize(
    "overrides",
    [
        {"secagg.grid": "ternary"},
        {"secagg.grid": "int4", "rounds.weighting": "uniform", "codec.error_feedback": False},
        {"secagg.grid": "int8", "secagg.rounds_per_keys": 3},
        {"rounds.cohort": 3, "data.partition.clients": 5, "codec.downlink": "dense"},
    ],
    ids=["ternary", "int4 without residuals", "int8 with keys for three rounds", "cohorts"],
)
def test_a_masked_run_has_the_bits_of_the_same_integers_without_masks(
    overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = masked_config(tmp_path, **overrides)
    with plain_digits(monkeypatch) as plain:
        store, run = run_inline(config)

    assert_plain_sums(store, run, config, plain)
    assert run.final_digest != store.rounds(run.id)[1].state_digest


def test_clients_restarted_before_every_message_give_the_same_bits(tmp_path: Path) -> None:
    config = masked_config(tmp_path, **{"rounds.total": 2, "data.partition.clients": 3})
    undisturbed = run_inline(config)[1].final_digest

    assert run_inline(config, client_app=restarted)[1].final_digest == undisturbed


def test_nothing_but_the_masked_words_leaves_a_client(tmp_path: Path) -> None:
    sent: list[Update] = []

    def watched(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        said = decode_reply(open_envelope(unpack(reply.content), max_bytes=2**24))
        if isinstance(said, Update):
            sent.append(said)
        return reply

    store, run = run_inline(masked_config(tmp_path), client_app=watched)

    assert len(sent) == 12
    assert not any(update.shards or update.metrics or update.num_examples for update in sent)
    assert len({update.masked for update in sent}) == 12
    updates = [update for record in store.rounds(run.id) for update in record.updates]
    assert {update.num_examples for update in updates} == {0}
    assert {update.weight for update in updates} == {0}


def test_a_private_run_is_masked_too_and_states_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = {
        "privacy.mechanism": "example",
        "privacy.epsilon": 5.0,
        "privacy.delta": 1e-3,
        "rounds.weighting": "uniform",
    }
    config = masked_config(tmp_path, **private, **{"rounds.total": 2})
    with plain_digits(monkeypatch) as plain:
        store, run = run_inline(config, client_app=killed(("client-002", InstructionKind.TRAIN, 1)))

    assert_plain_sums(store, run, config, plain)
    stated = [update.privacy for update in store.rounds(run.id)[2].updates]
    assert [statement is not None and 0 < statement.epsilon <= 5.0 for statement in stated] == [True] * 4
    assert not any(update.metrics for record in store.rounds(run.id) for update in record.updates)


@pytest.mark.parametrize("step", STEPS)
def test_one_client_killed_in_a_step_is_left_out_or_in_and_the_sum_is_exact(
    step: InstructionKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = 7  # the threshold is 5: one more may go where a cohort is to be signed
    config = masked_config(tmp_path, **{"data.partition.clients": clients, "rounds.retries": 1})
    dying = [("client-001", step, 2)]
    if step is InstructionKind.ATTEST:
        dying.append(("client-003", InstructionKind.TRAIN, 2))
    with plain_digits(monkeypatch) as plain:
        store, run = run_inline(config, client_app=killed(*dying))

    assert_plain_sums(store, run, config, plain)
    counted = [set(survivors(record)) for record in store.rounds(run.id)[1:]]
    everyone = {f"client-{part:03d}" for part in range(clients)}
    masked_before = step in (InstructionKind.ATTEST, InstructionKind.UNMASK)
    gone = {"client-003"} if step is InstructionKind.ATTEST else set()
    assert counted == [everyone, everyone - gone - (set() if masked_before else {"client-001"}), everyone]


def test_one_drop_out_too_many_loses_the_round_and_the_run_goes_on_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = masked_config(tmp_path, **{"rounds.retries": 1, "rounds.total": 4})
    dying = [(name, InstructionKind.TRAIN, 2) for name in ("client-001", "client-002")]
    with plain_digits(monkeypatch) as plain:
        store, run = run_inline(config, client_app=killed(*dying))

    assert_plain_sums(store, run, config, plain)
    lost = store.rounds(run.id)[2]
    assert lost.secagg is not None
    assert (lost.secagg.lost, survivors(lost)) == ("FEDFT-8822", [])
    assert lost.state_digest == store.rounds(run.id)[1].state_digest
    assert [update.code for update in lost.updates] == ["FEDFT-8822", "", "", "FEDFT-8822"]
    assert {"round-lost"} <= {event["kind"] for event in store.events(run.id)}
    assert run.status == "completed"


def test_rounds_that_keep_getting_lost_end_the_run_with_a_code(tmp_path: Path) -> None:
    config = masked_config(tmp_path, **{"rounds.retries": 1, "rounds.total": 5})
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    dying = [(f"client-00{part}", InstructionKind.SHARE, number) for part in (1, 2) for number in (1, 2)]
    with pytest.raises(FedftError, match="FEDFT-8830"):
        run_inline(config, client_app=killed(*dying), store=store, run=run)
    assert store.last_round(run.id) == 2

    assert run_inline(config, store=store, run=store.run(run.id))[1].status == "completed"
    assert [bool(survivors(record)) for record in store.rounds(run.id)[1:]] == [False, False, *[True] * 3]


@pytest.mark.parametrize("step", STEPS)
def test_a_server_restarted_in_a_step_goes_on_with_the_next_round(
    step: InstructionKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = masked_config(tmp_path, **{"rounds.retries": 0, "secagg.rounds_per_keys": 2})
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    at = 1 if step in STEPS[:3] else 2
    absent = killed(("client-003", InstructionKind.TRAIN, at))  # so that there is a cohort to be signed

    def ended(message: Message, context: Context) -> Message:
        instruction = instruction_of(message)
        if (instruction.kind, instruction.round.round) == (step, at) and client_of(context) == "client-001":
            raise KeyboardInterrupt
        return absent(message, context)

    with plain_digits(monkeypatch) as plain:
        with pytest.raises(KeyboardInterrupt):
            run_inline(config, client_app=ended, store=store, run=run)
        run_inline(config, store=store, run=store.run(run.id))

    assert_plain_sums(store, run, config, plain)
    rounds = store.rounds(run.id)[1:]
    assert [bool(survivors(record)) for record in rounds] == [number != at for number in (1, 2, 3)]
    lost = rounds[at - 1].secagg
    assert lost is not None
    assert lost.lost == "FEDFT-8830"


def test_a_run_taken_back_never_masks_a_round_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = masked_config(tmp_path)
    with plain_digits(monkeypatch) as plain:
        store, run = run_inline(config)
        store.roll_back(run.id, 1)
        run_inline(config, store=store, run=store.run(run.id))

    assert_plain_sums(store, run, config, plain)
    assert [bool(survivors(record)) for record in store.rounds(run.id)[1:]] == [True, False, False]


def test_an_update_without_masks_is_refused_and_harms_its_client_alone(tmp_path: Path) -> None:
    def bare(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        said = decode_reply(open_envelope(unpack(reply.content), max_bytes=2**24))
        if isinstance(said, Update) and client_of(context) == "client-002":
            return Message(pack(seal(encode_reply(replace(said, masked=b"")))), reply_to=message)
        return reply

    store, run = run_inline(masked_config(tmp_path), client_app=bare)

    for record in store.rounds(run.id)[1:]:
        codes = {update.client: update.code for update in record.updates}
        assert codes == {"client-000": "", "client-001": "", "client-002": "FEDFT-8829", "client-003": ""}


def test_another_clients_identity_cannot_be_claimed(tmp_path: Path) -> None:
    first: list[bytes] = []

    def thief(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        said = decode_reply(open_envelope(unpack(reply.content), max_bytes=2**24))
        if isinstance(said, Hello):
            first.append(said.introduction)
            if client_of(context) == "client-003":
                stolen = replace(said, introduction=first[0])
                return Message(pack(seal(encode_reply(stolen))), reply_to=message)
        return reply

    store, run = run_inline(masked_config(tmp_path, **{"rounds.min_clients": 3}), client_app=thief)

    codes = {update.client: update.code for update in store.rounds(run.id)[0].updates}
    assert codes["client-003"] == "FEDFT-8808"
    assert len(survivors(store.rounds(run.id)[3])) == 3


def test_the_steps_bytes_are_counted_and_in_the_report(tmp_path: Path) -> None:
    config = masked_config(tmp_path, **{"secagg.rounds_per_keys": 3})
    store, run = run_inline(config)
    rounds = store.rounds(run.id)

    first, second = rounds[1].secagg, rounds[2].secagg
    assert first is not None
    assert second is not None
    assert first.bytes_up > second.bytes_up > 4 * 3 * 33
    assert sum(update.bytes_up for update in rounds[2].updates) > second.bytes_up
    page = render(store.run(run.id), rounds, store.events(run.id))
    assert "Secure aggregation" in page
    assert "4 of 4" in page
