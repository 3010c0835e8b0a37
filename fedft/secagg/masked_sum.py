"""The server's part of a round: add masked vectors, settle who survives, unmask the sum."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fedft.errors import Code, FedftError
from fedft.secagg.cohort import Cohort
from fedft.secagg.identities import verify
from fedft.secagg.key_exchange import KeyExchange, expect_going_on
from fedft.secagg.keys import agree, commitment, mask_private, pair_mask_key, self_mask_key
from fedft.secagg.masks import add_mask
from fedft.secagg.messages import (
    Attestation,
    CohortRequest,
    MaskedInput,
    MaskRequest,
    Payload,
    UnmaskReply,
    UnmaskRequest,
)
from fedft.secagg.packing import Packing
from fedft.secagg.recovery import recover


@dataclass(frozen=True)
class SecureSum:
    """The sum of the survivors' digits, (elements,) int64, and who they are."""

    digits: NDArray[np.int64]
    survivors: tuple[int, ...]


class MaskedSum:
    """Steps 3 to 5 at the server, for one round. A message that is refused changes nothing.

    Without drop-outs a client answers twice: ``close_masked`` gives the request to unmask. After drop-outs it
    gives a request to sign the cohort, and ``close_attestations`` the one to unmask.

    Args:
        exchange: a finished key exchange that covers the round.
        round: its number.
        payload: what is summed.

    Raises:
        FedftError: FEDFT-8809 (round not covered), FEDFT-8810 (key exchange not finished), FEDFT-8819.

    """

    def __init__(self, exchange: KeyExchange, round: int, payload: Payload) -> None:
        if exchange.roster is None or not exchange.cohort:
            raise FedftError(Code.OUT_OF_TURN, "the key exchange is not finished")
        self.session = exchange.session
        self.roster = exchange.roster
        self.round = round
        self.payload = payload
        self.cohort = exchange.cohort
        self.place = self.session.place(round)
        self.packing = Packing(payload.elements, payload.largest, len(self.cohort))
        self.survivors: tuple[int, ...] = ()
        self.words = np.zeros(self.packing.words, dtype=np.uint64)
        self.whole_attestations: dict[int, bytes] = {}
        self.attestations: dict[int, bytes] = {}
        self.unmasking = False
        self.replies: dict[int, Mapping[int, int]] = {}

    def request(self) -> MaskRequest:
        """Give the request that goes to all of U2."""
        return MaskRequest(self.session.digest, self.round, self.payload)

    def take_masked(self, member: int, masked: MaskedInput) -> None:
        """Add a client's masked vector.

        Raises:
            FedftError: FEDFT-8808, 8809, 8812, 8818 (the message), FEDFT-8810 (too late: the vector stays
                masked for good), FEDFT-8821 (a second time).

        """
        self._expect_message(masked.session, masked.round, not self.survivors)
        self._expect_first_of(member, self.cohort, self.whole_attestations)
        statement = self._statement(Cohort(self.cohort, self.cohort))
        verify(self.session.members[member], masked.attestation, statement)
        self.words += self.packing.from_bytes(masked.words)
        self.whole_attestations[member] = masked.attestation

    def close_masked(self) -> CohortRequest | UnmaskRequest:
        """End step 3 and fix the survivors, each of whom gets the request. Raises FEDFT-8822 with too few."""
        self._expect_turn(not self.survivors)
        expect_going_on(self.whole_attestations, self.session, "sent a masked vector")
        self.survivors = tuple(sorted(self.whole_attestations))
        cohort = self._cohort()
        if not cohort.whole:
            return CohortRequest(self.session.digest, self.round, cohort.survivors, cohort.dropped)
        self.attestations = self.whole_attestations
        return self._unmask_request()

    def take_attestation(self, member: int, attestation: Attestation) -> None:
        """Take a survivor's signature on the cohort; raises as ``take_masked`` does."""
        self._expect_message(attestation.session, attestation.round, bool(self.survivors))
        self._expect_turn(not self.unmasking)
        self._expect_first_of(member, self.survivors, self.attestations)
        verify(self.session.members[member], attestation.signature, self._statement(self._cohort()))
        self.attestations[member] = attestation.signature

    def close_attestations(self) -> UnmaskRequest:
        """End step 4; the request goes to the survivors. Raises FEDFT-8822 with too few signatures."""
        self._expect_turn(bool(self.survivors) and not self.unmasking)
        expect_going_on(self.attestations, self.session, "signed who survives")
        return self._unmask_request()

    def take_shares(self, member: int, reply: UnmaskReply) -> None:
        """Take a survivor's shares; raises as ``take_masked`` does, FEDFT-8811 on shares of others."""
        self._expect_message(reply.session, reply.round, self.unmasking)
        self._expect_first_of(member, self.survivors, self.replies)
        if not set(reply.shares) <= set(self.cohort):
            raise FedftError(
                Code.COHORT_LIST_INVALID, f"client {member} sent shares of clients that are not in the cohort"
            )
        self.replies[member] = dict(reply.shares)

    def finish(self) -> SecureSum:
        """Unmask the sum.

        Raises:
            FedftError: FEDFT-8822 with too few answers, FEDFT-8823 when a secret cannot be recovered,
                FEDFT-8824 when what is left is no sum of digits.

        """
        self._expect_turn(self.unmasking)
        expect_going_on(self.replies, self.session, "gave their shares")
        words = self.words.copy()
        for member in self.survivors:
            key = self_mask_key(self._seed(member), self.session.digest, self.round, member)
            add_mask(words, key, subtract=True)
        for member in self._cohort().dropped:
            self._take_pair_masks_away(words, member)
        return SecureSum(self.packing.unpack(words, len(self.survivors)), self.survivors)

    def _take_pair_masks_away(self, words: NDArray[np.uint64], dropped: int) -> None:
        own = self._mask_private(dropped)
        for member in self.survivors:
            secret = agree(own, self.roster.advertisements[member].rounds[self.place].mask_key)
            key = pair_mask_key(secret, self.session.digest, self.round, member, dropped)
            add_mask(words, key, subtract=member < dropped)

    def _seed(self, member: int) -> bytes:
        expected = self.roster.advertisements[member].rounds[self.place].commitment
        return self._recover(
            member,
            lambda seed: commitment(seed, self.session.digest, self.round, member) == expected,
        )

    def _mask_private(self, member: int) -> X25519PrivateKey:
        expected = self.roster.advertisements[member].rounds[self.place].mask_key

        def private(seed: bytes) -> X25519PrivateKey:
            return mask_private(seed, self.session.digest, self.round, member)

        seed = self._recover(member, lambda seed: private(seed).public_key().public_bytes_raw() == expected)
        return private(seed)

    def _recover(self, dealer: int, is_right: Callable[[bytes], bool]) -> bytes:
        shares = {holder: reply[dealer] for holder, reply in self.replies.items() if dealer in reply}
        return recover(shares, self.session.threshold, dealer, is_right)

    def _unmask_request(self) -> UnmaskRequest:
        self.unmasking = True
        cohort = self._cohort()
        return UnmaskRequest(
            self.session.digest, self.round, cohort.survivors, cohort.dropped, dict(self.attestations)
        )

    def _cohort(self) -> Cohort:
        return Cohort(self.cohort, self.survivors)

    def _statement(self, cohort: Cohort) -> bytes:
        return cohort.statement(self.session, self.roster, self.round, self.payload.digest())

    def _expect_message(self, session: bytes, round: int, in_turn: bool) -> None:
        self.session.expect(session)
        if round != self.round:
            raise FedftError(Code.SESSION_MISMATCH, f"the message is of round {round}, this is {self.round}")
        self._expect_turn(in_turn)

    def _expect_turn(self, in_turn: bool) -> None:
        if not in_turn:
            raise FedftError(Code.OUT_OF_TURN, f"this step of round {self.round} is over, or has not begun")

    def _expect_first_of(self, member: int, allowed: tuple[int, ...], seen: Container[int]) -> None:
        if member not in allowed:
            raise FedftError(Code.COHORT_GREW, f"client {member} has no part in this step")
        if member in seen:
            raise FedftError(Code.ANSWERED_ALREADY, f"client {member} has answered this step already")
