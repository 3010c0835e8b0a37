"""A sender's shares for one receiver, encrypted and bound to session, sender and receiver."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedft.secagg.binding import bind
from fedft.secagg.shamir import PRIME, SHARE_BYTES

TAG_BYTES = 16
_NONCE = bytes(12)
"""A key seals one message in its life, so the nonce need not vary."""


def seal(shares: list[int], key: bytes, session: bytes, sender: int, receiver: int) -> bytes:
    """Encrypt shares with ChaCha20-Poly1305; 17 bytes a share and 16 for the tag."""
    plain = b"".join(share.to_bytes(SHARE_BYTES, "little") for share in shares)
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, _about(session, sender, receiver))


def open_sealed(
    sealed: bytes, count: int, key: bytes, session: bytes, sender: int, receiver: int
) -> list[int] | None:
    """Decrypt ``count`` shares; None unless they are exactly what the sender sealed for the receiver."""
    try:
        plain = ChaCha20Poly1305(key).decrypt(_NONCE, sealed, _about(session, sender, receiver))
    except InvalidTag:
        return None
    shares = [
        int.from_bytes(plain[first : first + SHARE_BYTES], "little")
        for first in range(0, len(plain), SHARE_BYTES)
    ]
    good = len(plain) == count * SHARE_BYTES and all(share < PRIME for share in shares)
    return shares if good else None


def _about(session: bytes, sender: int, receiver: int) -> bytes:
    return bind(b"sealed shares", session, sender, receiver)
