"""The server's part of a key exchange: collect keys, send them round, pass sealed shares on."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Container, Sized

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedft.errors import Code, FedftError
from fedft.secagg.advertisements import check_advertisement, check_distinct
from fedft.secagg.decode import decode_roster, decode_shares
from fedft.secagg.encode import encode
from fedft.secagg.keys import agree
from fedft.secagg.messages import Advertisement, Delivery, Roster, Shares
from fedft.secagg.sealing import TAG_BYTES
from fedft.secagg.session import Session
from fedft.secagg.shamir import SHARE_BYTES

_FORMAT = "fedft secagg key exchange 1"


class KeyExchange:
    """Steps 1 and 2 at the server. A message that is refused changes nothing; its sender is left out.

    Args:
        session: its terms.

    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.roster: Roster | None = None
        self.cohort: tuple[int, ...] = ()
        self._probe = X25519PrivateKey.generate()
        self._advertisements: dict[int, Advertisement] = {}
        self._shares: dict[int, Shares] = {}

    def take_advertisement(self, member: int, advertisement: Advertisement) -> None:
        """Take a member's keys.

        Raises:
            FedftError: FEDFT-8808, 8809 (the keys), FEDFT-8810 (too late), FEDFT-8821 (a second time).

        """
        self._expect_phase(self.roster is None, "keys")
        _expect_first(member, self._advertisements)
        check_advertisement(advertisement, member, self.session)
        for key in (advertisement.sealing_key, *(keys.mask_key for keys in advertisement.rounds)):
            agree(self._probe, key)  # a key of low order would stop everyone else
        check_distinct(Roster(self.session.digest, self._advertisements | {member: advertisement}))
        self._advertisements[member] = advertisement

    def close_advertisements(self) -> Roster:
        """End step 1; the roster goes to all its members. Raises FEDFT-8822 with too few."""
        self._expect_phase(self.roster is None, "keys")
        expect_going_on(self._advertisements, self.session, "sent keys")
        self.roster = Roster(self.session.digest, dict(sorted(self._advertisements.items())))
        return self.roster

    def take_shares(self, member: int, shares: Shares) -> None:
        """Take a member's sealed shares.

        Raises:
            FedftError: FEDFT-8809 (another session), FEDFT-8810 (out of turn), FEDFT-8811 (not one for each
                other member), FEDFT-8812 (no member of the roster), FEDFT-8821 (a second time).

        """
        roster = self._roster()
        self._expect_phase(not self.cohort, "shares")
        self.session.expect(shares.session)
        if member not in roster.advertisements:
            raise FedftError(Code.COHORT_GREW, f"client {member} is not in the roster")
        _expect_first(member, self._shares)
        size = 2 * self.session.rounds * SHARE_BYTES + TAG_BYTES
        sizes = {len(sealed) for sealed in shares.sealed.values()}
        if set(shares.sealed) != set(roster.members) - {member} or sizes != {size}:
            raise FedftError(
                Code.COHORT_LIST_INVALID, f"client {member} has not sealed one share for each other client"
            )
        self._shares[member] = shares

    def close_shares(self) -> tuple[int, ...]:
        """End step 2 and give U2, each of whom gets its ``delivery``. Raises FEDFT-8822 with too few."""
        self._expect_phase(self.roster is not None and not self.cohort, "shares")
        expect_going_on(self._shares, self.session, "shared their secrets")
        self.cohort = tuple(sorted(self._shares))
        return self.cohort

    def delivery(self, member: int) -> Delivery:
        """Give what the others sealed for a member of U2."""
        sealed = {dealer: shares.sealed for dealer, shares in self._shares.items() if dealer != member}
        return Delivery(
            self.session.digest, self.cohort, {dealer: boxes[member] for dealer, boxes in sealed.items()}
        )

    def to_bytes(self) -> bytes:
        """Serialise the state, which holds no secret."""
        facts = {
            "format": _FORMAT,
            "session": self.session.digest.hex(),
            "advertisements": _text(encode(Roster(self.session.digest, self._advertisements))),
            "closed": self.roster is not None,
            "shares": {str(member): _text(encode(shares)) for member, shares in self._shares.items()},
            "cohort": list(self.cohort),
        }
        return json.dumps(facts).encode()

    @classmethod
    def from_bytes(cls, data: bytes, session: Session) -> KeyExchange:
        """Read what ``to_bytes`` wrote; raises FEDFT-8825 when it is damaged or another session's."""
        exchange = cls(session)
        try:
            facts = json.loads(data)
            if facts["format"] != _FORMAT or facts["session"] != session.digest.hex():
                raise ValueError("another format or session")
            roster = decode_roster(b64decode(facts["advertisements"]))
            exchange._advertisements = dict(roster.advertisements)
            exchange.roster = roster if facts["closed"] else None
            exchange._shares = {
                int(member): decode_shares(b64decode(text)) for member, text in facts["shares"].items()
            }
            exchange.cohort = tuple(int(member) for member in facts["cohort"])
        except (ValueError, KeyError, TypeError, FedftError) as error:
            raise FedftError(
                Code.SECAGG_STATE_DAMAGED, f"not the state of this key exchange: {error}"
            ) from None
        return exchange

    def _roster(self) -> Roster:
        if self.roster is None:
            raise FedftError(Code.OUT_OF_TURN, "the keys are not complete yet")
        return self.roster

    def _expect_phase(self, good: bool, what: str) -> None:
        if not good:
            raise FedftError(Code.OUT_OF_TURN, f"the step for {what} is over, or has not begun")


def expect_going_on(members: Sized, session: Session, did: str) -> None:
    """Raise FEDFT-8822 when fewer members than the threshold got through a step."""
    if len(members) < session.threshold:
        raise FedftError(
            Code.TOO_FEW_SURVIVORS,
            f"{len(members)} of {len(session.members)} clients {did}, the threshold is {session.threshold}",
            hint="the round is lost and nothing of it is revealed; go on with the next one",
        )


def _expect_first(member: int, seen: Container[int]) -> None:
    if member in seen:
        raise FedftError(Code.ANSWERED_ALREADY, f"client {member} has answered this step already")


def _text(data: bytes) -> str:
    return b64encode(data).decode()
