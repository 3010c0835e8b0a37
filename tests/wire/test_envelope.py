from __future__ import annotations

import tracemalloc

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import FedftError
from fedft.wire import decode_reply, encode_reply, open_envelope, seal
from fedft.wire.bounds import MAX_FIELDS
from fedft.wire.v1 import envelope_pb2 as pb
from tests.wire.samples import REPLIES

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PAYLOAD = encode_reply(REPLIES["update"])
CAP = 1 << 20


@given(st.binary(max_size=300))
def test_round_trip(payload: bytes) -> None:
    assert open_envelope(seal(payload), max_bytes=CAP) == payload
    assert open_envelope(seal(payload, KEY), max_bytes=CAP, trusted_key=KEY.public_key()) == payload


def test_size_is_checked_before_anything_else() -> None:
    data = b"\xff" * 1000
    with pytest.raises(FedftError, match="FEDFT-4001"):
        open_envelope(data, max_bytes=999)


def envelope(**changes: object) -> bytes:
    message = pb.Envelope.FromString(seal(PAYLOAD, KEY))
    for name, value in changes.items():
        setattr(message, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xff\xff", "FEDFT-4002"),
        (envelope(wire_version=0), "FEDFT-4003"),
        (envelope(wire_version=2), "FEDFT-4003"),
        (envelope(payload=PAYLOAD + b"\0"), "FEDFT-4004"),
        (envelope(payload_sha256=b""), "FEDFT-4004"),
        (envelope(payload_sha256=b"\0" * 32), "FEDFT-4004"),
        (seal(PAYLOAD), "FEDFT-4005"),
        (seal(PAYLOAD, OTHER), "FEDFT-4006"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    with pytest.raises(FedftError, match=code):
        open_envelope(data, max_bytes=CAP, trusted_key=KEY.public_key())


@pytest.mark.parametrize(
    ("field", "value"),
    [("algorithm", 0), ("algorithm", 5), ("key_id", b""), ("value", b"\0" * 64), ("value", b"")],
)
def test_a_signature_that_is_not_right_in_every_part(field: str, value: int | bytes) -> None:
    message = pb.Envelope.FromString(seal(PAYLOAD, KEY))
    setattr(message.signature, field, value)
    with pytest.raises(FedftError, match="FEDFT-4006"):
        open_envelope(message.SerializeToString(), max_bytes=CAP, trusted_key=KEY.public_key())


def test_a_signature_of_other_bytes_with_a_matching_hash() -> None:
    """The attacker can compute hashes; only the signature stops this one."""
    message = pb.Envelope.FromString(seal(PAYLOAD + b"\0"))
    message.signature.CopyFrom(pb.Envelope.FromString(seal(PAYLOAD, KEY)).signature)
    assert open_envelope(message.SerializeToString(), max_bytes=CAP) == PAYLOAD + b"\0"
    with pytest.raises(FedftError, match="FEDFT-4006"):
        open_envelope(message.SerializeToString(), max_bytes=CAP, trusted_key=KEY.public_key())


def test_a_million_empty_submessages_are_refused_without_building_them() -> None:
    shards = b"\x32\x00" * 1_000_000  # field 6 of Update: an empty Shard
    length = len(shards)
    prefix = b"\x0a" + bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
    payload = prefix + shards
    tracemalloc.start()
    with pytest.raises(FedftError, match="FEDFT-4009"):
        decode_reply(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_the_field_cap_allows_what_it_says() -> None:
    unknown = b"\xf8\x07\x01"  # field 127, a varint
    room = MAX_FIELDS - 1 - 8  # the reply's one field and the few of the refusal
    payload = encode_reply(REPLIES["refusal"])
    assert decode_reply(payload + unknown * room) == REPLIES["refusal"]
    with pytest.raises(FedftError, match="FEDFT-4009"):
        decode_reply(payload + unknown * MAX_FIELDS)


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(200):
        length = len(data)
        data = (
            b"\x0a" + (bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])) + data
        )
    with pytest.raises(FedftError):
        decode_reply(data)


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_truncated_bytes_never_decode_to_the_message(cut: int) -> None:
    data = seal(PAYLOAD)
    with pytest.raises(FedftError):
        open_envelope(data[: len(data) - 1 - cut], max_bytes=CAP)


def test_groups_are_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-4002"):
        decode_reply(b"\xfb\x07\xfc\x07")
