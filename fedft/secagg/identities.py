"""Which signing keys a party takes for members' own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedft.errors import Code, FedftError

SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Identities:
    """Pinned Ed25519 identities, as raw public keys.

    A server that could name members at will would surround a client with clients of its own; a client
    therefore takes part only with identities that it got from elsewhere.
    """

    trusted: frozenset[bytes]
    revoked: frozenset[bytes] = frozenset()

    def check(self, members: Iterable[bytes]) -> None:
        """Refuse members that are not pinned.

        Raises:
            FedftError: FEDFT-8804 (revoked), FEDFT-8803 (unknown).

        """
        for member in members:
            if member in self.revoked:
                raise FedftError(Code.MEMBER_REVOKED, f"the identity {member.hex()[:16]} was revoked")
            if member not in self.trusted:
                raise FedftError(
                    Code.MEMBER_UNKNOWN,
                    f"the identity {member.hex()[:16]} is unknown here",
                    hint="pin the site's public key before taking part with it",
                )


def verify(identity: bytes, signature: bytes, statement: bytes) -> None:
    """Check an Ed25519 signature.

    Raises:
        FedftError: FEDFT-8808 unless it is the identity's on exactly this statement.

    """
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, statement)
    except (InvalidSignature, ValueError):
        raise FedftError(
            Code.MEMBER_KEY_INVALID,
            f"a signature is not that of the identity {identity.hex()[:16]}",
        ) from None
