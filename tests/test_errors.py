"""The error type and its codes."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import Code, FedftError, Kind

KNOWN = st.sampled_from(Code)
UNKNOWN = st.integers(0, 9999).map(lambda n: f"FEDFT-{n:04}").filter(lambda text: text not in list(Code))


@given(KNOWN)
def test_a_code_is_its_text(code: Code) -> None:
    assert str(code) == f"{code}" == code.value == json.loads(json.dumps(code))
    assert {code.value: 1}[code] == 1
    assert Code(code.value) is code


@given(UNKNOWN)
def test_a_code_of_a_newer_build_is_final_and_private(text: str) -> None:
    code = FedftError(text, "what happened").code

    assert code == text
    assert (code.kind, code.private) == (Kind.FINAL, True)
    assert text not in Code.__members__.values()


@given(KNOWN | UNKNOWN)
def test_an_error_survives_pickling_and_copying(text: str) -> None:
    error = FedftError(text, "what happened", hint="what to do")

    for other in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (other.code, other.code.kind, other.message, other.hint) == (
            error.code,
            error.code.kind,
            "what happened",
            "what to do",
        )
        assert str(other) == f"{text} what happened (what to do)"


@pytest.mark.parametrize(
    "text", ["", "FEDFT-1", "FEDFT-10030", "fedft-1003", "FEDFT-1003\n", "1003", "FEDFT-١٠٠٣"]
)
def test_other_text_is_no_code(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid Code"):
        FedftError(text, "what happened")


@pytest.mark.parametrize("band", ["3", "6", "9"])
def test_messages_about_records_training_and_weights_are_private(band: str) -> None:
    codes = [code for code in Code if code.startswith(f"FEDFT-{band}")]

    assert codes
    assert all(code.private for code in codes)


def test_mistakes_in_the_configuration_are_mistakes_in_usage() -> None:
    assert all(code.kind is Kind.USAGE for code in Code if code.startswith("FEDFT-1"))
