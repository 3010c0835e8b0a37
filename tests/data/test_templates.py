from __future__ import annotations

from typing import Any

import pytest

from fedft.data.templates import TextTemplate, check_messages, label_index
from fedft.errors import FedftError


def test_a_template_fills_in_fields_and_keeps_doubled_braces() -> None:
    template = TextTemplate("Q: {question}\n{{{answer}}}")
    assert template.names == ("question", "answer")
    assert template.render({"question": "why?", "answer": "{so}"}) == "Q: why?\n{{so}}"


@pytest.mark.parametrize("source", ["{", "}", "{a.__class__}", "{a[0]}", "{}", "{0}", "{a!r}", "{a:>9}"])
def test_anything_but_plain_fields_is_refused(source: str) -> None:
    with pytest.raises(FedftError, match="FEDFT-3020"):
        TextTemplate(source)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hello",
        None,
        [{"role": "user", "content": "hi"}],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": 3}],
        ["hi"],
    ],
)
def test_malformed_chats_are_refused(messages: Any) -> None:
    with pytest.raises(FedftError, match="FEDFT-3021 record 7"):
        check_messages(messages, "record 7")


@pytest.mark.parametrize(
    ("value", "index"), [("bad", 0), ("good", 1), (" good ", 1), (1, 1), ("0", 0), (0, 0)]
)
def test_labels_by_name_and_by_index(value: Any, index: int) -> None:
    assert label_index(value, ("bad", "good"), "record 1") == index


def test_a_name_goes_before_an_index() -> None:
    assert label_index("1", ("1", "0"), "record 1") == 0


@pytest.mark.parametrize("value", ["ugly", 2, -1, "2", "-1", 1.0, True, "", "²"])
def test_unknown_labels_are_refused(value: Any) -> None:
    with pytest.raises(FedftError, match="FEDFT-3023 record 1"):
        label_index(value, ("bad", "good"), "record 1")
