"""JSON texts of any length as messages of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fedft.errors import Code, FedftError
from fedft.server.admin.answers import SCHEMA_VERSION
from fedft.wire.v1 import admin_pb2 as pb

_PIECE = 1 << 18  # characters, at most four bytes each: well below gRPC's 4 MiB
_LARGEST = 1 << 28


def documents(text: str) -> Iterator[Any]:
    """Yield a text in messages; all but the last one say that it goes on."""
    for start in range(0, len(text), _PIECE):
        end = start + _PIECE
        yield pb.Document(schema_version=SCHEMA_VERSION, json=text[start:end], more=end < len(text))


def texts(stream: Iterable[Any]) -> Iterator[str]:
    """Yield the texts of a stream, each put together; FEDFT-4001 when one is larger than any honest one."""
    pieces: list[str] = []
    size = 0
    for document in stream:
        pieces.append(document.json)
        size += len(document.json)
        if size > _LARGEST:
            raise FedftError(
                Code.ENVELOPE_TOO_LARGE, f"the server's answer has more than {_LARGEST} characters"
            )
        if not document.more:
            yield "".join(pieces)
            pieces, size = [], 0
