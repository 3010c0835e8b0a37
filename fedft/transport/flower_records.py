"""Envelopes (bytes) inside Flower's records."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedft.errors import Code, FedftError

_KEY = "fedft"
_STYPE = "fedft.v1"
# Flower chunks arrays but sends a ConfigRecord as one object; small payloads are cheaper as the latter.
_ARRAY_FROM = 4 * 2**20


def pack(envelope: bytes) -> RecordDict:
    """Put an envelope into a RecordDict."""
    if len(envelope) < _ARRAY_FROM:
        return RecordDict({_KEY: ConfigRecord({"envelope": envelope})})
    array = Array(dtype="uint8", shape=(len(envelope),), stype=_STYPE, data=envelope)
    return RecordDict({_KEY: ArrayRecord({"envelope": array})})


def unpack(content: RecordDict) -> bytes:
    """Take the envelope out again; FEDFT-7001 when there is none."""
    record = content.get(_KEY)
    value = record.get("envelope") if record is not None else None
    if isinstance(value, Array) and value.stype == _STYPE:
        return bytes(value.data)
    if isinstance(value, bytes):
        return value
    raise FedftError(
        Code.ENVELOPE_MISSING, "a message without a fedft envelope", hint="another Flower app answers here"
    )
