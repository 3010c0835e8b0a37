"""Clients that answer otherwise than they were asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from fedft.client.app import app as honest_app
from fedft.errors import FedftError
from fedft.store import RunStore
from fedft.transport.flower_records import pack, unpack
from fedft.wire import (
    Hello,
    NeedSetup,
    Refusal,
    Reply,
    RoundRef,
    decode_reply,
    encode_reply,
    open_envelope,
    seal,
)
from tests.federation import run_inline, tiny_config

NO_ROUND = RoundRef("", 0)
App = Callable[[Message, Any], Message]


def _changed(kind: str, change: Callable[[Any], Reply], *, client: int = 1) -> App:
    """The honest client app, but one client's replies to messages of a kind go through ``change``."""

    def app(message: Message, context: Any) -> Message:
        reply = honest_app(message, context)
        if message.metadata.message_type != kind or context.node_config["partition-id"] != client:
            return reply
        said = decode_reply(open_envelope(unpack(reply.content), max_bytes=2**24))
        return Message(pack(seal(encode_reply(change(said)))), reply_to=message)

    return app


def test_two_nodes_that_are_the_same_client_end_the_run(tmp_path: Path) -> None:
    def twin(hello: Hello) -> Reply:
        return replace(hello, client_id="client-000")

    with pytest.raises(FedftError, match=r"FEDFT-6103 .*client-000"):
        run_inline(tiny_config(tmp_path), client_app=_changed("query", twin))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda hello: replace(hello, base_digest="ab" * 32), "FEDFT-2010"),
        (lambda hello: replace(hello, codecs=dict(hello.codecs) | {2: 9}), "FEDFT-4010"),
        (lambda hello: replace(hello, codecs={1: 1}), "FEDFT-4010"),
        (lambda hello: Refusal(NO_ROUND, "FEDFT-0042", "newer", hello.client_id), "FEDFT-0042"),
        (lambda _hello: Refusal(NO_ROUND, "no code", "x", "client-001"), "FEDFT-4007"),
    ],
)
def test_one_that_cannot_take_part_is_left_out_with_its_reason(
    tmp_path: Path, change: Callable[[Hello], Reply], code: str
) -> None:
    store = RunStore(tmp_path / "store")
    config = tiny_config(tmp_path, **{"rounds.min_clients": 2, "rounds.total": 1})

    run = run_inline(config, client_app=_changed("query", change), store=store)[1]

    assert [update.client for update in store.rounds(run.id)[1].updates] == ["client-000", "client-002"]
    assert code in str([event for event in store.events(run.id) if event["kind"] == "client-left-out"])


@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
def test_a_message_of_another_kind_harms_its_sender_alone(kind: str, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        **{"rounds.min_clients": 2, "rounds.total": 1},
        **{"evaluation.federated": True, "evaluation.holdout": 0.2},
    )
    another = NeedSetup(NO_ROUND, "ab" * 32) if kind == "query" else Hello("client-001", "", 0, 1, {})

    store, run = run_inline(config, client_app=_changed(kind, lambda _said: another))

    assert run.status == "completed"
    assert "FEDFT-6104" in str(store.events(run.id)) + str(store.rounds(run.id)[1].updates)
