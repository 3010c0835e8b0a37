"""Texts of any length in messages of bounded size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import FedftError
from fedft.server.admin import documents as module
from fedft.server.admin.documents import documents, texts


@given(st.lists(st.text(min_size=1), min_size=1), st.integers(1, 5))
def test_texts_come_out_as_they_went_in(sent: list[str], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", piece)
        messages = [message for text in sent for message in documents(text)]
        assert all(0 < len(message.json) <= piece for message in messages)
        assert list(texts(messages)) == sent


def test_a_message_of_the_largest_characters_is_one_that_grpc_takes() -> None:
    (first, *_) = documents("\U0001f512" * 300_000)
    assert first.ByteSize() < 4 << 20


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST", 100)
    endless = (message for _ in iter(int, 1) for message in list(documents("x" * module._PIECE * 2))[:1])
    with pytest.raises(FedftError, match="FEDFT-4001"):
        next(texts(endless))
