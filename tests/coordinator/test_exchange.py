from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict

from fedft.coordinator.exchange import Answer, ExchangeOptions, Request, exchange
from fedft.errors import FedftError
from fedft.transport.flower_messages import OwnGrid
from fedft.transport.flower_records import pack, unpack

Script = Callable[[Message, int], Message | None]
TERMS = ExchangeOptions("train", "1", deadline=0.5, retries=1)


class ScriptedGrid(OwnGrid):
    """Answers each message with what ``script`` makes of it, later for later pulls; None is silence."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.pending: dict[str, Message] = {}
        self.sent: list[Message] = []

    def set_run(self, *_args: Any, **_kwargs: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def get_node_ids(self) -> Iterable[int]:
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self.sent.append(message)
            ids.append(message.metadata.message_id)
            reply = self.script(message, len(self.sent))
            if reply is not None:
                self.pending[message.metadata.message_id] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = [key for key in message_ids if key in self.pending]
        return [self.pending.pop(key) for key in reversed(ready)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        raise NotImplementedError


def _requests(count: int) -> list[Request]:
    return [Request(f"client-{i}", i, b"hello", bytes_down=5) for i in range(count)]


def _echo(message: Message, _count: int) -> Message:
    return Message(pack(unpack(message.content) + b"!"), reply_to=message)


def test_answers_are_matched_to_clients_in_whatever_order_they_come() -> None:
    answers = list(exchange(ScriptedGrid(_echo), _requests(3), TERMS))

    assert [answer.request.client for answer in answers] == ["client-2", "client-1", "client-0"]
    assert {answer.envelope for answer in answers} == {b"hello!"}


def test_an_error_reply_is_tried_again_and_then_reported() -> None:
    def always_fails(message: Message, _count: int) -> Message:
        return Message(Error(code=2, reason="no\nmemory"), reply_to=message)

    grid = ScriptedGrid(always_fails)
    (answer,) = exchange(grid, _requests(1), TERMS)

    assert len(grid.sent) == 2
    assert answer.failure == "no memory (Flower error 2)"
    assert not answer.late
    assert answer.request.bytes_down == 10


def test_a_silent_client_is_late_and_the_others_are_not_kept_waiting() -> None:
    def one_is_silent(message: Message, count: int) -> Message | None:
        return None if message.metadata.dst_node_id == 1 else _echo(message, count)

    answers = list(exchange(ScriptedGrid(one_is_silent), _requests(3), TERMS))

    assert [(a.request.client, a.late) for a in answers] == [
        ("client-2", False),
        ("client-0", False),
        ("client-1", True),
    ]


def test_messages_live_as_long_as_the_deadline() -> None:
    grid = ScriptedGrid(_echo)
    list(exchange(grid, _requests(2), TERMS))

    assert [message.metadata.ttl for message in grid.sent] == [0.5, 0.5]


def test_a_follow_up_is_sent_to_the_same_client_and_only_its_answer_counts() -> None:
    def again(answer: Answer) -> Request | None:
        return None if answer.request.envelope == b"more" else Request("client-0", 0, b"more")

    (answer,) = exchange(ScriptedGrid(_echo), _requests(1), TERMS, again)

    assert answer.envelope == b"more!"


def test_a_message_of_another_app_is_a_failure_of_that_client() -> None:
    grid = ScriptedGrid(lambda message, _count: Message(RecordDict(), reply_to=message))
    (answer,) = exchange(grid, _requests(1), TERMS)

    assert "FEDFT-7001" in answer.failure


def test_stopping_interrupts() -> None:
    terms = ExchangeOptions("train", "1", deadline=5.0, stopped=lambda: True)
    with pytest.raises(KeyboardInterrupt):
        list(exchange(ScriptedGrid(lambda *_: None), _requests(1), terms))


def test_a_carrier_that_drops_messages_is_an_error() -> None:
    class Leaky(ScriptedGrid):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            return list(super().push_messages(messages))[1:]

    with pytest.raises(FedftError, match="FEDFT-7002"):
        list(exchange(Leaky(_echo), _requests(2), TERMS))


def test_large_envelopes_travel_as_arrays_and_come_back_whole() -> None:
    large = bytes(range(256)) * 2**15
    assert unpack(pack(large)) == large
    assert unpack(pack(b"small")) == b"small"
