from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from fedft.codecs import codec_versions, spec
from fedft.wire.enums import DENSE_TYPES, KINDS, MECHANISMS, RULES, UNITS, Words
from fedft.wire.v1 import messages_pb2, tensors_pb2

ROOT = Path(__file__).resolve().parents[2]


def test_generated_code_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "proto" / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_codec_ids_agree_with_the_proto() -> None:
    ids = {
        "DENSE": spec.DENSE,
        "TERNARY": spec.TERNARY,
        "ROTATED": spec.ROTATED,
        "BLOCK_INT": spec.BLOCK_INT,
        "NAMED": spec.NAMED,
    }
    assert dict(tensors_pb2.CodecId.items()) == {
        "CODEC_ID_UNSPECIFIED": 0,
        **{f"CODEC_ID_{name}": number for name, number in ids.items()},
    }
    assert set(codec_versions()) == set(ids.values())


@pytest.mark.parametrize(
    ("words", "enum"),
    [
        (KINDS, messages_pb2.InstructionKind),
        (MECHANISMS, messages_pb2.PrivacyMechanism),
        (UNITS, messages_pb2.PrivacyUnit),
        (DENSE_TYPES, tensors_pb2.DenseType),
        (RULES, tensors_pb2.TernaryRule),
    ],
)
def test_word_tables_agree_with_the_proto(words: Words[str], enum: EnumTypeWrapper) -> None:
    for name, number in enum.items():
        if number:
            word = words.word(number)
            assert name.endswith(str(word).upper().replace("-", "_"))
            assert words.number(word) == number
