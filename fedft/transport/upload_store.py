"""Replies on their way in: on disk before they are acknowledged, checked before they are believed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection
from pathlib import Path

from fedft.errors import Code, FedftError
from fedft.identity.members import Member
from fedft.transport.transfer import PartialFile
from fedft.wire import NeedSetup, Refusal, Reply, decode_reply, open_envelope


class UploadStore:
    """Replies on their way in: one file of at most ``max_bytes`` for each open message.

    A file goes when its reply is refused, when another reply to the same message begins, when the message is
    closed, when the node's key is revoked, and when a server starts. The last reply that was taken of each
    node stays until its next one, so that it is not sent again to a round that is repeated.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self.max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._files: dict[tuple[int, str], PartialFile] = {}
        self._last: dict[int, PartialFile] = {}
        shutil.rmtree(folder, ignore_errors=True)

    def file(self, node: int, message_id: str, digest: str, size: int) -> PartialFile:
        """Return the file of a reply to a message; FEDFT-7036 when it is larger than the server allows."""
        if size > self.max_bytes:
            raise FedftError(
                Code.TRANSFER_TOO_LARGE,
                f"a reply of {size} bytes, the server takes {self.max_bytes}",
                hint="the operator can raise limits.max_upload_bytes in server.toml",
            )
        file = PartialFile(self._folder / str(node) / digest, digest, size)
        with self._lock:
            before = self._files.get((node, message_id))
            self._files[node, message_id] = file
        if before is not None and before.digest != digest:
            before.delete()
        return file

    def taken(self, node: int, message_id: str) -> None:
        """Note that the reply to a message is with the coordinator."""
        with self._lock:
            file = self._files.pop((node, message_id), None)
            before = self._last.get(node)
            if file is not None:
                self._last[node] = file
        if file is not None and before is not None and before.digest != file.digest:
            before.delete()

    def forget(self, node: int, message_id: str) -> None:
        """Delete what there is of the reply to a message."""
        with self._lock:
            file = self._files.pop((node, message_id), None)
        if file is not None:
            file.delete()

    def forget_node(self, node: int) -> None:
        """Delete everything that a node has sent, the last reply that was taken of it too."""
        with self._lock:
            self._last.pop(node, None)
            for key in [key for key in self._files if key[0] == node]:
                del self._files[key]
        shutil.rmtree(self._folder / str(node), ignore_errors=True)

    def sweep(self, open_messages: Collection[tuple[int, str]]) -> None:
        """Delete what belongs to messages that are open no more."""
        for node, message_id in self._files.keys() - set(open_messages):
            self.forget(node, message_id)

    def read(self, file: PartialFile, member: Member) -> tuple[bytes, Reply]:
        """Return a whole reply and what it says, after its checks; one that fails is deleted.

        Raises:
            FedftError: FEDFT-4001 to 4009 on its form and signature, FEDFT-7039 when it names another client.

        """
        data = file.path.read_bytes()
        try:
            return data, check_reply(data, member, self.max_bytes)
        except FedftError:
            file.delete()
            raise


def check_reply(data: bytes, member: Member, max_bytes: int) -> Reply:
    """Return a reply that is signed with the member's key and names the member."""
    if member.signing_key is None:
        raise FedftError(Code.CLIENT_NAME_MISMATCH, f"{member.name} has no signing key, so it cannot reply")
    reply = decode_reply(open_envelope(data, max_bytes=max_bytes, trusted_key=member.signing_key))
    if isinstance(reply, NeedSetup) or (isinstance(reply, Refusal) and not reply.client_id):
        return reply
    if reply.client_id != member.name:
        raise FedftError(
            Code.CLIENT_NAME_MISMATCH,
            f"a reply in the name of {reply.client_id[:80]!r} came from {member.name}",
            hint="set `name` in site.toml to the name that the operator enrolled",
        )
    return reply
