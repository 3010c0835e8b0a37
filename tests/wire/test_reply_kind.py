"""What a reply claims to be, without parsing it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedft.coordinator import broadcast
from fedft.coordinator.broadcast import lacks_setup
from fedft.wire import NeedSetup, RoundRef, Update, encode_reply, reply_kind, seal
from tests.wire.samples import MODEL, REPLIES, ROUND, SHARDS


@pytest.mark.parametrize("name", sorted(REPLIES))
def test_the_kind_is_that_of_the_parsed_reply(name: str) -> None:
    assert reply_kind(encode_reply(REPLIES[name])) is type(REPLIES[name])


def test_a_request_for_the_setup_is_told_from_an_update_without_parsing_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broadcast, "decode_reply", None)
    large = (replace(SHARDS[0], blob=bytes(5000)),)

    assert lacks_setup(seal(encode_reply(NeedSetup(RoundRef("r" * 256, 7), "aa" * 32))))
    assert not lacks_setup(seal(encode_reply(Update(ROUND, MODEL, "client-a", 1, 1, SHARDS))))
    assert not lacks_setup(seal(encode_reply(Update(ROUND, MODEL, "client-a", 1, 1, large))))
    assert not lacks_setup(bytes(range(100)))
