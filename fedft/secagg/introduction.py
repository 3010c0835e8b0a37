"""How a client shows, before a session is made, which identity it will sign with."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.errors import Code, FedftError
from fedft.secagg.binding import bind
from fedft.secagg.identities import SIGNATURE_BYTES, verify
from fedft.secagg.session import IDENTITY_BYTES


def introduce(key: Ed25519PrivateKey, run_id: str, client: str) -> bytes:
    """Give a public key and its signature on a run and the client's name, 96 bytes."""
    return key.public_key().public_bytes_raw() + key.sign(_statement(run_id, client))


def introduced(introduction: bytes, run_id: str, client: str) -> bytes:
    """Give the identity that a client has introduced itself with.

    Nobody can claim another's: that would leave the other out.

    Raises:
        FedftError: FEDFT-8808 unless the signature is the identity's.

    """
    if len(introduction) != IDENTITY_BYTES + SIGNATURE_BYTES:
        raise FedftError(Code.MEMBER_KEY_INVALID, "the client has not said which identity it signs with")
    identity, signature = introduction[:IDENTITY_BYTES], introduction[IDENTITY_BYTES:]
    verify(identity, signature, _statement(run_id, client))
    return identity


def _statement(run_id: str, client: str) -> bytes:
    return bind(b"introduction", run_id.encode(), client.encode())
