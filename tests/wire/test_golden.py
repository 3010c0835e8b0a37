"""Files written once, read forever. A failure here means that old and new builds no longer understand."""

from __future__ import annotations

import json

import pytest

from fedft.codecs import CodecContext, codec_names, decode, state_digest
from fedft.wire import (
    Update,
    decode_instruction,
    decode_reply,
    encode_instruction,
    encode_reply,
    open_envelope,
    seal,
)
from tests.wire.make_golden import FOLDER, KEY, SEED, golden_manifest
from tests.wire.samples import INSTRUCTIONS, REPLIES

DIGESTS = json.loads((FOLDER / "decoded.json").read_text())


def payload(name: str) -> bytes:
    data = (FOLDER / f"{name}.bin").read_bytes()
    return open_envelope(data, max_bytes=1 << 20, trusted_key=KEY.public_key())


@pytest.mark.parametrize("name", REPLIES)
def test_replies(name: str) -> None:
    assert decode_reply(payload(name)) == REPLIES[name]
    assert seal(encode_reply(REPLIES[name]), KEY) == (FOLDER / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions(name: str) -> None:
    assert decode_instruction(payload(name)) == INSTRUCTIONS[name]
    assert seal(encode_instruction(INSTRUCTIONS[name]), KEY) == (FOLDER / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", DIGESTS)
def test_coded_updates_decode_to_the_same_bits(name: str) -> None:
    data = (FOLDER / f"codec_{name}.bin").read_bytes()
    update = decode_reply(open_envelope(data, max_bytes=1 << 20))
    assert isinstance(update, Update)
    decoded = decode(update.shards, golden_manifest(), CodecContext(seed=SEED))
    assert state_digest(decoded) == DIGESTS[name]


def test_every_codec_and_message_has_a_file() -> None:
    assert set(codec_names()) <= set(DIGESTS)
    names = {path.stem for path in FOLDER.glob("*.bin")}
    assert names == set(REPLIES) | set(INSTRUCTIONS) | {f"codec_{name}" for name in DIGESTS}
