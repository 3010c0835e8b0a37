"""Replies on their way in: on disk before they are acknowledged, checked before they are believed."""

from __future__ import annotations

from pathlib import Path

from fedft.errors import Code, FedftError
from fedft.identity.members import Member
from fedft.transport.transfer import PartialFile, keep_newest
from fedft.wire import NeedSetup, Refusal, decode_reply, open_envelope

_KEPT = 4


class UploadStore:
    """Received replies of every node, by digest; the last few stay, so that none is sent twice."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self.max_bytes = folder, max_bytes

    def file(self, node: int, digest: str, size: int) -> PartialFile:
        """Return the file of a reply; FEDFT-7036 when it is larger than the server allows."""
        if size > self.max_bytes:
            raise FedftError(
                Code.TRANSFER_TOO_LARGE,
                f"a reply of {size} bytes, the server takes {self.max_bytes}",
                hint="the operator can raise limits.max_upload_bytes in server.toml",
            )
        return PartialFile(self._folder / str(node) / digest, digest, size)

    def read(self, file: PartialFile, member: Member) -> bytes:
        """Return a whole reply after its checks; one that fails is deleted.

        Raises:
            FedftError: FEDFT-4001 to 4009 on its form and signature, FEDFT-7039 when it names another client.

        """
        data = file.path.read_bytes()
        try:
            check_reply(data, member, self.max_bytes)
        except FedftError:
            file.path.unlink(missing_ok=True)
            raise
        keep_newest(file.path.parent, _KEPT)
        return data


def check_reply(data: bytes, member: Member, max_bytes: int) -> None:
    """Check that a reply is signed with the member's key and names the member."""
    if member.signing_key is None:
        raise FedftError(Code.CLIENT_NAME_MISMATCH, f"{member.name} has no signing key, so it cannot reply")
    reply = decode_reply(open_envelope(data, max_bytes=max_bytes, trusted_key=member.signing_key))
    if isinstance(reply, NeedSetup) or (isinstance(reply, Refusal) and not reply.client_id):
        return
    if reply.client_id != member.name:
        raise FedftError(
            Code.CLIENT_NAME_MISMATCH,
            f"a reply in the name of {reply.client_id[:80]!r} came from {member.name}",
            hint="set `name` in site.toml to the name that the operator enrolled",
        )
