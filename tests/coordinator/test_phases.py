"""Phases of a round: several exchanges with state between them, and what the first of a run settles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, MessageType

from client_app.app import app as honest_app
from fedft.coordinator.exchange import Answer, Request
from fedft.coordinator.handshake import HandshakePhase, reasons_of
from fedft.coordinator.phase import PhaseDriver
from fedft.coordinator.server_model import ServerBase
from fedft.errors import FedftError
from fedft.models.load import load_count
from fedft.store import RunStore, UpdateRecord
from fedft.training.model_runtime import ModelRuntime
from fedft.transport.flower_records import pack, unpack
from fedft.transport.inline import InlineGrid
from fedft.wire import Hello, ModelRef, decode_reply, encode_reply, open_envelope, seal
from tests.federation import run_inline, tiny_config

SHAPES_ALONE = {"adapter.initialiser": "random", "evaluation.every": 0}


def answering(answer: Callable[[bytes, int], bytes]) -> Callable[[Message, Context], Message]:
    """A client that answers bytes with bytes."""

    def app(message: Message, context: Context) -> Message:
        client = context.node_config["partition-id"]
        assert isinstance(client, int)
        return Message(pack(answer(unpack(message.content), client)), reply_to=message)

    return app


@dataclass
class Ask:
    """Sends words to some nodes and returns what each says."""

    number: int
    words: dict[int, bytes]
    message_type: str = MessageType.TRAIN
    _said: dict[int, bytes] = field(default_factory=dict)

    def request(self) -> Sequence[Request]:
        return [Request(f"node-{node}", node, words) for node, words in self.words.items()]

    def follow_up(self, answer: Answer) -> Request | None:
        return None

    def take(self, answer: Answer) -> None:
        self._said[answer.request.node_id] = answer.envelope

    def close(self) -> dict[int, bytes]:
        return self._said


def test_a_round_of_several_exchanges_carries_state_from_one_to_the_next(tmp_path: Path) -> None:
    def answer(words: bytes, client: int) -> bytes:
        return words + str(client).encode()

    grid: Any = InlineGrid(answering(answer), 3)  # type: ignore[arg-type]
    driver = PhaseDriver(grid, tiny_config(tmp_path).rounds)

    keys = driver.run(Ask(1, dict.fromkeys(grid.get_node_ids(), b"key")))
    first, *others = sorted(keys)
    shares = driver.run(Ask(1, {node: b"".join(keys[node] for node in sorted(keys)) for node in others}))
    assert set(shares) == set(others)
    assert sorted(said[:12] for said in shares.values()) == [b"key0key1key2"] * 2
    assert first not in shares


@pytest.fixture
def stopped_driver(tmp_path: Path) -> PhaseDriver:
    grid: Any = InlineGrid(answering(lambda words, _client: words), 2)  # type: ignore[arg-type]
    return PhaseDriver(grid, tiny_config(tmp_path).rounds, lambda: True)


def test_a_stopped_run_ends_in_the_middle_of_a_phase(stopped_driver: PhaseDriver) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped_driver.run(Ask(1, dict.fromkeys(stopped_driver.grid.get_node_ids(), b"")))


def test_a_server_without_evaluation_and_with_a_frame_of_shapes_loads_no_model(tmp_path: Path) -> None:
    before = load_count()
    store, run = run_inline(tiny_config(tmp_path, **SHAPES_ALONE))
    clients_alone = load_count() - before
    evaluated = run_inline(tiny_config(tmp_path, **SHAPES_ALONE | {"evaluation.every": 3}))[1]

    assert clients_alone == 1  # one worker serves all clients of this process
    assert run.final_digest == evaluated.final_digest
    assert (run.base_digest, run.manifest_digest) == (evaluated.base_digest, evaluated.manifest_digest)
    assert store.rounds(run.id)[0].state_digest


def test_a_resumed_run_needs_the_base_for_no_more_than_evaluation(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"adapter.initialiser": "lora-xs", "evaluation.every": 0})
    store, run = run_inline(config)
    store.roll_back(run.id, 2)
    before = load_count()
    again = run_inline(config, store=store, run=store.run(run.id))[1]

    assert load_count() == before  # the worker of this process holds it already
    assert again.final_digest == run.final_digest


@pytest.mark.parametrize("method", ["fedsb", "fedit", "ffa-lora"])
def test_layers_without_weights_give_the_frame_that_the_loaded_base_gives(
    tmp_path: Path, method: str
) -> None:
    config = tiny_config(tmp_path, **SHAPES_ALONE, method=method)
    base, runtime = ServerBase(config, new=True), ModelRuntime(config)

    assert base.runtime is None
    assert base.target_shapes() == runtime.target_shapes()
    frames = base.build_frames()
    assert frames.digest() == runtime.build_frames().digest()
    runtime.attach(frames)
    start, expected = base.start(frames), runtime.state()
    assert start.keys() == expected.keys()
    assert all((start[name] == expected[name]).all() for name in expected)


def other_base(partition: int) -> Callable[[Message, Context], Message]:
    """A federation in which one client holds another base model."""

    def app(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if context.node_config["partition-id"] != partition:
            return reply
        said = decode_reply(open_envelope(unpack(reply.content), max_bytes=2**24))
        if isinstance(said, Hello):
            said = replace(said, base_digest="77" * 32)
        return Message(pack(seal(encode_reply(said))), reply_to=message)

    return app


def test_sites_that_disagree_on_the_base_are_named_and_nothing_begins(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **SHAPES_ALONE | {"rounds.min_clients": 2})
    store = RunStore(config.store.path)
    with pytest.raises(FedftError, match="FEDFT-6111") as error:
        run_inline(config, client_app=other_base(1), store=store)

    assert "7777777777777777…: client-001" in error.value.message
    assert "client-000, client-002" in error.value.message
    (run,) = store.runs()
    assert (run.base_digest, store.last_round(run.id)) == ("", None)


def test_once_the_base_is_pinned_a_site_with_another_one_is_left_out(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **SHAPES_ALONE | {"rounds.min_clients": 2})
    store, run = run_inline(config)
    store.roll_back(run.id, 1)
    run_inline(config, client_app=other_base(1), store=store, run=store.run(run.id))

    (left_out,) = [event for event in store.events(run.id) if event["kind"] == "client-left-out"]
    assert "client-001: FEDFT-2010" in left_out["message"]
    assert [update.client for update in store.rounds(run.id)[-1].updates] == ["client-000", "client-002"]


@pytest.mark.parametrize("expected", ["", "aa" * 32])
def test_a_client_that_names_no_base_takes_no_part(expected: str) -> None:
    phase = HandshakePhase(
        "run", "{}", ModelRef(expected, "", "", ""), [7], codecs={}, wanted=1, deadline=1.0
    )
    (request,) = phase.request()
    phase.take(Answer(request, seal(encode_reply(Hello("client-a", "", 1, 1, {})))))

    with pytest.raises(FedftError, match=r"FEDFT-6101.*FEDFT-2010"):
        phase.close()


def test_a_reason_that_many_clients_have_is_given_once() -> None:
    def refused(client: str, code: str, message: str) -> UpdateRecord:
        return UpdateRecord(client, "refused", code=code, message=message)

    records = [refused(f"client-{i:03d}", "FEDFT-3005", "record 21 has no field") for i in range(9)]
    records += [UpdateRecord("client-009", "accepted"), UpdateRecord("client-010", "late", message="silent")]

    assert reasons_of(records) == (
        "client-000, client-001, client-002 and 6 more: FEDFT-3005 record 21 has no field; client-010: silent"
    )
