"""Messages between server and client, their bytes, and the envelope around them."""

from fedft.wire.decode import FEATURES, decode_instruction, decode_reply, reply_kind
from fedft.wire.encode import encode_instruction, encode_reply
from fedft.wire.envelope import WIRE_VERSION, key_id, open_envelope, seal
from fedft.wire.messages import (
    Acknowledgement,
    Evaluation,
    Hello,
    Instruction,
    InstructionKind,
    ModelRef,
    NeedSetup,
    Refusal,
    Reply,
    RoundRef,
    SecaggAnswer,
    Setup,
    Update,
)

__all__ = [
    "FEATURES",
    "WIRE_VERSION",
    "Acknowledgement",
    "Evaluation",
    "Hello",
    "Instruction",
    "InstructionKind",
    "ModelRef",
    "NeedSetup",
    "Refusal",
    "Reply",
    "RoundRef",
    "SecaggAnswer",
    "Setup",
    "Update",
    "decode_instruction",
    "decode_reply",
    "encode_instruction",
    "encode_reply",
    "key_id",
    "open_envelope",
    "reply_kind",
    "seal",
]
