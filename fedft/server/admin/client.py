"""The operator's end of the admin service."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fedft.coordinator.events import Event
from fedft.errors import Code, FedftError
from fedft.files import new_folder
from fedft.identity.keys import require_in_force
from fedft.identity.site_files import ADMIN_FILE, CERTIFICATE
from fedft.server.admin.answers import Answer, RunDetail, RunState
from fedft.server.admin.documents import texts
from fedft.server.event_stream import event_from_json
from fedft.transport.rpc_errors import raised
from fedft.transport.tls import TlsFiles, open_channel
from fedft.wire.v1 import admin_pb2 as pb
from fedft.wire.v1.admin_pb2_grpc import AdminStub

A = TypeVar("A", bound=Answer)

_CALL_SECONDS = 60.0


class AdminClient:
    """Calls the admin service with the identity in ``folder``.

    Raises:
        FedftError: FEDFT-7050 when the folder is none of an operator, FEDFT-7054 when its certificate is not
            in force; from every call FEDFT-7030 and 7031
            when the server is not reached, and the server's own errors.

    """

    def __init__(self, folder: Path) -> None:
        try:
            self.address = str(tomllib.loads((folder / ADMIN_FILE).read_text())["address"])
        except (OSError, ValueError, KeyError) as error:
            raise FedftError(
                Code.SITE_SETTINGS_INVALID,
                f"no usable {ADMIN_FILE} in {folder}: {error}",
                hint="name the operator's folder with --admin or FEDFT_ADMIN",
            ) from None
        require_in_force(
            folder / CERTIFICATE, hint=f"on the server's machine: fedft server operator SERVER {folder}"
        )
        self._channel = open_channel(
            TlsFiles(folder / "ca.crt", folder / CERTIFICATE, folder / "tls.key"), self.address
        )
        self._stub = AdminStub(self._channel)

    def ask(self, answer: type[A], method: str, request: Any) -> A:
        """Call a method and return its answer; FEDFT-4002 when it is none of this kind."""
        with raised(self.address):
            reply = getattr(self._stub, method)(request, timeout=_CALL_SECONDS)
            (text,) = texts([reply] if isinstance(reply, pb.Document) else reply)
        return _parsed(answer, text)

    def watch(self, run: str) -> tuple[RunDetail, Iterator[Event | RunState]]:
        """Return a run as it stands, and what happens in it: events, and how it stands at the end."""
        stream = texts(self._stub.WatchRun(pb.RunRequest(run=run)))
        with raised(self.address):
            return _parsed(RunDetail, next(stream)), self._happenings(stream)

    def _happenings(self, stream: Iterator[str]) -> Iterator[Event | RunState]:
        with raised(self.address):
            for text in stream:
                event = event_from_json(text)
                yield _parsed(RunState, text) if event is None else event

    def export(self, request: Any, out: Path) -> Path:
        """Write an export's files into a new folder, which is there once they are complete.

        Raises:
            FedftError: FEDFT-6008 when it holds something already.

        """
        with new_folder(out) as begun, raised(self.address):
            file: Path | None = None
            for part in self._stub.ExportRun(request):
                if part.path:
                    file = _inside(begun, part.path)
                    file.write_bytes(b"")
                if file is not None:
                    with file.open("ab") as end:
                        end.write(part.data)
        return out

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise FedftError(Code.TRANSFER_DAMAGED, f"the server names a file outside the folder: {name[:80]!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _parsed(answer: type[A], text: str) -> A:
    try:
        return answer.model_validate_json(text)
    except ValidationError as error:
        raise FedftError(
            Code.MESSAGE_MALFORMED,
            f"the server's answer is no {answer.__name__}: {error.errors()[0]['msg']}",
            hint="run the same version of fedft on both ends",
        ) from None
