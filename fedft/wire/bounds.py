"""A cap on the number of fields, checked before a message is parsed.

A parsed protobuf message can be far larger than its bytes: an empty sub-message takes 2 bytes on the wire
and about a hundred in memory. Honest messages have few fields and large blobs, so the fields are counted
first, without building anything.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from fedft.errors import Code, FedftError

MAX_FIELDS = 20_000
"""Above any honest message: 2,000 shards of seven fields each, and metrics."""

MAX_DEPTH = 8

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_fields(data: bytes, message: Message | type[Message]) -> None:
    """Walk a serialised message and its sub-messages.

    Raises:
        FedftError: FEDFT-4002 when the bytes are not a message, FEDFT-4009 when it has too many fields.

    """
    _walk(data, 0, len(data), message.DESCRIPTOR, MAX_FIELDS, MAX_DEPTH)


def _walk(data: bytes, at: int, end: int, descriptor: Any, budget: int, depth: int) -> int:
    while at < end:
        budget -= 1
        if budget < 0 or depth == 0:
            raise FedftError(
                Code.MESSAGE_TOO_COMPLEX,
                f"a message with more than {MAX_FIELDS} fields or {MAX_DEPTH} levels",
            )
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise FedftError(Code.MESSAGE_MALFORMED, "a field is longer than its message")
            inner = _message(descriptor, tag >> 3)
            if inner is not None:
                budget = _walk(data, at, at + length, inner, budget, depth - 1)
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            # Groups are not part of the format, and skipping them costs a stack.
            raise FedftError(Code.MESSAGE_MALFORMED, f"wire type {kind} is not used by any message")
    if at != end:
        raise FedftError(Code.MESSAGE_MALFORMED, "a field runs over the end of its message")
    return budget


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise FedftError(Code.MESSAGE_MALFORMED, "a number is cut short or too long")


def _message(descriptor: Any, number: int) -> Any:
    """Give the descriptor of the sub-message that a field holds, None for any other field."""
    field = descriptor.fields_by_number.get(number)
    return None if field is None else field.message_type
