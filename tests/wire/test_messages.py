from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import pytest

from fedft.errors import FedftError
from fedft.wire import (
    NeedSetup,
    RoundRef,
    Update,
    decode_instruction,
    decode_reply,
    encode_instruction,
    encode_reply,
)
from fedft.wire.v1 import messages_pb2 as pb
from fedft.wire.v1.tensors_pb2 import DENSE_TYPE_UNSPECIFIED
from tests.wire.samples import INSTRUCTIONS, REFUSAL, REPLIES, UPDATE


@pytest.mark.parametrize("name", REPLIES)
def test_reply_round_trip(name: str) -> None:
    payload = encode_reply(REPLIES[name])
    assert decode_reply(payload) == REPLIES[name]
    assert encode_reply(decode_reply(payload)) == payload


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instruction_round_trip(name: str) -> None:
    payload = encode_instruction(INSTRUCTIONS[name])
    assert decode_instruction(payload) == INSTRUCTIONS[name]
    assert encode_instruction(decode_instruction(payload)) == payload


def test_metrics_have_one_order_on_the_wire() -> None:
    turned = dataclasses.replace(UPDATE, metrics=dict(reversed(list(UPDATE.metrics.items()))))
    assert encode_reply(UPDATE) == encode_reply(turned)


def test_unknown_optional_fields_are_ignored() -> None:
    unknown = b"\xfa\x07\x03abc"  # field 127, three bytes
    inner = pb.Reply.FromString(encode_reply(REPLIES["update"])).update.SerializeToString() + unknown
    update = pb.Update.FromString(inner)
    assert unknown in update.SerializeToString(), "the sample must really carry the unknown field"
    payload = pb.Reply(update=update).SerializeToString() + unknown
    assert decode_reply(payload) == REPLIES["update"]


def test_an_unknown_required_feature_is_refused_by_name() -> None:
    message = pb.Reply.FromString(encode_reply(REPLIES["update"]))
    message.update.required_features.append("time-travel")
    with pytest.raises(FedftError, match=r"FEDFT-4008 .*time-travel"):
        decode_reply(message.SerializeToString())
    instruction = pb.Instruction.FromString(encode_instruction(INSTRUCTIONS["instruction_train"]))
    instruction.required_features.append("time-travel")
    with pytest.raises(FedftError, match=r"FEDFT-4008 .*time-travel"):
        decode_instruction(instruction.SerializeToString())


def changed(path: str, value: bytes | str | float) -> bytes:
    message = pb.Reply.FromString(encode_reply(REPLIES["update"]))
    *parents, last = path.split(".")
    target: Any = message  # a message nested in it, by the names on the path
    for name in parents:
        target = getattr(target, name)
    setattr(target, last, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("update.model.base_digest", b"short"),
        ("update.client_id", "x" * 257),
        ("update.round.run_id", "x" * 257),
        ("update.privacy.mechanism", 0),
        ("update.privacy.mechanism", 77),
        ("update.privacy.unit", 0),
        ("update.privacy.noise_multiplier", math.nan),
        ("update.privacy.noise_multiplier", math.inf),
        ("update.privacy.delta", -1e-9),
        ("update.privacy.epsilon", math.nan),
    ],
)
def test_a_field_out_of_bounds_is_refused(path: str, value: bytes | str | float) -> None:
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_reply(changed(path, value))


def test_an_infinite_epsilon_may_be_stated() -> None:
    update = decode_reply(changed("update.privacy.epsilon", math.inf))
    assert isinstance(update, Update)
    assert update.privacy is not None
    assert update.privacy.epsilon == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metrics_must_be_finite(value: float) -> None:
    message = pb.Reply.FromString(encode_reply(REPLIES["update"]))
    message.update.metrics["loss"] = value
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_reply(message.SerializeToString())


def test_too_many_metrics() -> None:
    message = pb.Reply.FromString(encode_reply(REPLIES["update"]))
    for i in range(65):
        message.update.metrics[f"m{i}"] = 1.0
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_reply(message.SerializeToString())


@pytest.mark.parametrize("missing", ["round", "model"])
def test_a_missing_reference_is_refused(missing: Literal["round", "model"]) -> None:
    message = pb.Reply.FromString(encode_reply(REPLIES["update"]))
    message.update.ClearField(missing)
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_reply(message.SerializeToString())


@pytest.mark.parametrize("deadline", [0.0, -1.0, math.nan, math.inf])
def test_a_deadline_is_a_positive_number(deadline: float) -> None:
    message = pb.Instruction.FromString(encode_instruction(INSTRUCTIONS["instruction_train"]))
    message.deadline_seconds = deadline
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_instruction(message.SerializeToString())


def test_unspecified_kinds_are_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_reply(b"")
    message = pb.Instruction.FromString(encode_instruction(INSTRUCTIONS["instruction_train"]))
    message.kind = pb.INSTRUCTION_KIND_UNSPECIFIED
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_instruction(message.SerializeToString())


def test_a_codec_without_known_parameters_is_refused() -> None:
    message = pb.Reply.FromString(encode_reply(REPLIES["update"]))
    message.update.shards[0].codec.ClearField("params")
    with pytest.raises(FedftError, match="FEDFT-4010"):
        decode_reply(message.SerializeToString())
    message.update.shards[0].codec.dense.type = DENSE_TYPE_UNSPECIFIED
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_reply(message.SerializeToString())


def test_a_digest_that_is_none_is_not_sent() -> None:
    with pytest.raises(FedftError, match="FEDFT-4007"):
        encode_reply(NeedSetup(RoundRef("r", 1), "abc"))


@pytest.mark.parametrize("code", ["", "no code", "FEDFT-12", "FEDFT-80010", "8001", "FEDFT-8001 and more"])
def test_a_refusal_with_something_else_than_a_code_is_refused(code: str) -> None:
    refusal = dataclasses.replace(REFUSAL, code=code)
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_reply(encode_reply(refusal))


def test_a_refusal_with_a_code_of_a_newer_build_is_read() -> None:
    refusal = dataclasses.replace(REFUSAL, code="FEDFT-0042")
    assert decode_reply(encode_reply(refusal)) == refusal
