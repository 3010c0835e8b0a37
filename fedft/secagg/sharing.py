"""A client's secrets shared out among the members, each holder's part sealed for it."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedft.secagg.client_state import ClientState
from fedft.secagg.keys import agree, sealing_key
from fedft.secagg.messages import Roster
from fedft.secagg.sealing import open_sealed, seal
from fedft.secagg.session import Session
from fedft.secagg.shamir import split


def share_out(
    session: Session, state: ClientState, number: int, roster: Roster
) -> tuple[list[int], dict[int, bytes]]:
    """Share the two seeds of each round.

    Returns:
        the shares that the dealer itself holds, and those of every other member of the roster, sealed.

    """
    secrets = [secret for row in state.rounds for secret in (row.seed, row.key_seed)]
    dealt = [split(secret, session.threshold, len(session.members)) for secret in secrets]
    own = X25519PrivateKey.from_private_bytes(state.sealing_key)
    sealed = {}
    for other in roster.members:
        if other != number:
            secret = agree(own, roster.advertisements[other].sealing_key)
            key = sealing_key(secret, session.digest, number, other)
            sealed[other] = seal([shares[other] for shares in dealt], key, session.digest, number, other)
    return [shares[number] for shares in dealt], sealed


def open_shares(
    session: Session, state: ClientState, number: int, roster: Roster, boxes: Mapping[int, bytes]
) -> dict[int, list[int]]:
    """Open what dealers sealed for member ``number``, by dealer; what does not open is left out."""
    own = X25519PrivateKey.from_private_bytes(state.sealing_key)
    opened = {}
    for dealer, sealed in boxes.items():
        secret = agree(own, roster.advertisements[dealer].sealing_key)
        key = sealing_key(secret, session.digest, dealer, number)
        shares = open_sealed(sealed, 2 * session.rounds, key, session.digest, dealer, number)
        if shares is not None:
            opened[dealer] = shares
    return opened
