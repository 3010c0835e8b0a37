"""What must hold for any bytes at all; shared by atheris, hypothesis and the mutation script.

The only exception that hostile bytes may cause is ``FedftError``.
"""

from __future__ import annotations

import hashlib

import numpy as np

from fedft.aggregation import ExactAccumulator
from fedft.codecs import CodecContext, Manifest, Shard, decode, decode_update
from fedft.errors import FedftError
from fedft.wire import (
    Instruction,
    Update,
    decode_instruction,
    decode_reply,
    encode_instruction,
    encode_reply,
    open_envelope,
)
from fedft.wire.bounds import check_fields
from fedft.wire.v1 import envelope_pb2

MAX_BYTES = 1 << 20
SEED = b"golden"
MANIFEST = Manifest.of(
    {
        "head.weight": np.empty((3, 50), np.float32),
        "layers.0.R": np.empty((16, 16), np.float32),
        "layers.1.R": np.empty((70, 70), np.float32),
    }
)
CONTEXT = CodecContext(seed=SEED)


def check_envelope(data: bytes) -> bool:
    """A payload comes out only if its hash stands in the bytes; says whether one did."""
    try:
        payload = open_envelope(data, max_bytes=MAX_BYTES)
    except FedftError:
        return False
    if hashlib.sha256(payload).digest() not in data:
        raise AssertionError("an envelope with a wrong hash was accepted")
    return True


def check_content(data: bytes) -> bool:
    """Look behind the hash: decode whatever payload the bytes hold; says whether an update was summed."""
    payload = _payload(data)
    summed = False
    try:
        reply = decode_reply(payload)
        _require(decode_reply(encode_reply(reply)) == reply, "a reply changes when it is sent on")
        if isinstance(reply, Update):
            summed = check_shards(reply.shards)
    except FedftError:
        pass
    try:
        instruction = decode_instruction(payload)
        again = decode_instruction(encode_instruction(instruction))
        _require(again == instruction, "an instruction changes when it is sent on")
        _check_broadcast(instruction)
    except FedftError:
        pass
    return summed


def check_shards(shards: tuple[Shard, ...]) -> bool:
    """Decoded shards are finite, within their stated peak and norm, and summed without surprise."""
    try:
        update = decode_update(shards, MANIFEST, CONTEXT)
        accumulator = ExactAccumulator(MANIFEST, seed=SEED)
        accumulator.add_decoded(update, 7)
    except FedftError:
        return False
    flat = MANIFEST.flatten(accumulator.mean()).astype(np.float64)
    _require(bool(np.isfinite(flat).all()), "a mean is not finite")
    _require(float(np.linalg.norm(flat)) <= update.norm * (1 + 1e-5) + 1e-9, "the norm was understated")
    _require(np.isfinite(update.norm), "a norm is not finite")
    return True


def _check_broadcast(instruction: Instruction) -> None:
    state = decode(instruction.global_state, MANIFEST, CONTEXT)
    MANIFEST.check(state)
    _require(all(np.isfinite(value).all() for value in state.values()), "a broadcast value is not finite")


def _payload(data: bytes) -> bytes:
    """Give the payload of an envelope whatever its hash says, or the bytes themselves."""
    try:
        check_fields(data, envelope_pb2.Envelope)
        return bytes(envelope_pb2.Envelope.FromString(data).payload)
    except (FedftError, ValueError):
        return data
    except Exception as error:
        if type(error).__name__ == "DecodeError":
            return data
        raise


def _require(good: bool, what: str) -> None:
    if not good:
        raise AssertionError(what)
