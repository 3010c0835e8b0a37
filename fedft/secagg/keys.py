"""Keys from shared secrets: X25519, then HKDF-SHA256 with a context for each use.

Everything that two parties or a seed give rise to is derived here, each under its own context, so that no key
is used for two purposes, in two sessions, in two rounds or in two directions.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedft.errors import Code, FedftError
from fedft.secagg.binding import bind

KEY_BYTES = 32
SEED_BYTES = 16
"""Of what is shared out: 128 bits, the strength of X25519."""


def agree(private: X25519PrivateKey, public: bytes) -> bytes:
    """Give the X25519 secret (32 bytes) of a private and a raw public key.

    Raises:
        FedftError: FEDFT-8808 when the public key is none, or of low order.

    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise FedftError(Code.MEMBER_KEY_INVALID, "a public key of a member is not an X25519 key") from None


def pair_mask_key(secret: bytes, session: bytes, round: int, a: int, b: int) -> bytes:
    """Give the AES-256 key of the mask that members ``a`` and ``b`` share in a round, in either order."""
    return _derive(secret, session, bind(b"pair mask", round, min(a, b), max(a, b)))


def mask_private(seed: bytes, session: bytes, round: int, member: int) -> X25519PrivateKey:
    """Give a member's private key of a round's pairwise masks; shares of its seed are half the size."""
    return X25519PrivateKey.from_private_bytes(_derive(seed, session, bind(b"mask key", round, member)))


def self_mask_key(seed: bytes, session: bytes, round: int, member: int) -> bytes:
    """Give the AES-256 key of a member's own mask in a round."""
    return _derive(seed, session, bind(b"self mask", round, member))


def commitment(seed: bytes, session: bytes, round: int, member: int) -> bytes:
    """Give 32 bytes that fix a member's seed of a round and tell nothing about it."""
    return _derive(seed, session, bind(b"seed commitment", round, member))


def sealing_key(secret: bytes, session: bytes, sender: int, receiver: int) -> bytes:
    """Give the ChaCha20-Poly1305 key for the one message of shares from a sender to a receiver."""
    return _derive(secret, session, bind(b"sealed shares", sender, receiver))


def _derive(secret: bytes, session: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=session, info=info).derive(secret)
