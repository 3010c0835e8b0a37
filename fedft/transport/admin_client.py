"""The operator's end of the admin service."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.identity.site_files import CERTIFICATE
from fedft.transport.rpc_errors import raised
from fedft.transport.tls import TlsFiles, open_channel
from fedft.wire.v1 import admin_pb2 as pb
from fedft.wire.v1.admin_pb2_grpc import AdminStub

_FILE = "admin.toml"
_CALL_SECONDS = 60.0


def write_admin_file(folder: Path, address: str) -> None:
    """Write ``admin.toml``, which says where the server is."""
    write_atomically(folder / _FILE, tomli_w.dumps({"address": address}).encode())


class AdminClient:
    """Calls the admin service with the identity in ``folder``.

    Raises:
        FedftError: FEDFT-7050 when the folder is none of an operator; from every call FEDFT-7030 and 7031
            when the server is not reached, and the server's own errors.

    """

    def __init__(self, folder: Path) -> None:
        try:
            self.address = str(tomllib.loads((folder / _FILE).read_text())["address"])
        except (OSError, ValueError, KeyError) as error:
            raise FedftError(
                Code.SITE_SETTINGS_INVALID,
                f"no usable {_FILE} in {folder}: {error}",
                hint="name the operator's folder with --admin or FEDFT_ADMIN",
            ) from None
        self._channel = open_channel(
            TlsFiles(folder / "ca.crt", folder / CERTIFICATE, folder / "tls.key"), self.address
        )
        self._stub = AdminStub(self._channel)

    def call(self, method: str, request: Any) -> dict[str, Any]:
        """Call a method and return its document."""
        with raised(self.address):
            document = getattr(self._stub, method)(request, timeout=_CALL_SECONDS)
        return _read(document)

    def watch(self, run: str) -> Iterator[dict[str, Any]]:
        """Yield what happens in a run until it ends."""
        with raised(self.address):
            for document in self._stub.WatchRun(pb.RunRequest(run=run)):
                yield _read(document)

    def export(self, request: Any, out: Path) -> Path:
        """Write an export's files into a new folder; FEDFT-6008 when it holds something already."""
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FedftError(
                Code.OUTPUT_NOT_EMPTY, f"{out} exists and is not an empty folder", hint="name a new folder"
            )
        out.mkdir(parents=True, exist_ok=True)
        file = None
        try:
            with raised(self.address):
                for part in self._stub.ExportRun(request):
                    if part.path:
                        if file is not None:
                            file.close()
                        file = _inside(out, part.path).open("wb")
                    if file is not None:
                        file.write(part.data)
        finally:
            if file is not None:
                file.close()
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


def _read(document: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document.json)
    return found
