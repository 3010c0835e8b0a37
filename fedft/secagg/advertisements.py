"""Checks of the keys that members advertise, the same at server and clients."""

from __future__ import annotations

from fedft.errors import Code, FedftError
from fedft.secagg.identities import verify
from fedft.secagg.keys import KEY_BYTES
from fedft.secagg.messages import Advertisement, Roster
from fedft.secagg.session import Session


def check_advertisement(advertisement: Advertisement, member: int, session: Session) -> None:
    """Check one member's keys.

    Raises:
        FedftError: FEDFT-8809 (another session), FEDFT-8808 (keys missing or malformed, or not signed by
            the member).

    """
    session.expect(advertisement.session)
    keys = [field for keys in advertisement.rounds for field in (keys.mask_key, keys.commitment)]
    sizes = {len(key) for key in (advertisement.sealing_key, *keys)}
    if len(advertisement.rounds) != session.rounds or sizes != {KEY_BYTES}:
        raise FedftError(
            Code.MEMBER_KEY_INVALID,
            f"client {member} advertises other keys than the session needs",
        )
    verify(session.members[member], advertisement.signature, advertisement.statement(member))


def check_distinct(roster: Roster) -> None:
    """Raise FEDFT-8808 where one public key stands for two members or two uses."""
    keys = [advertisement.sealing_key for advertisement in roster.advertisements.values()]
    for advertisement in roster.advertisements.values():
        keys += [keys_of_round.mask_key for keys_of_round in advertisement.rounds]
    if len(set(keys)) != len(keys):
        raise FedftError(Code.MEMBER_KEY_INVALID, "two clients, or two uses, have one public key")
