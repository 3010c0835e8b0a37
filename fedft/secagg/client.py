"""A client's side of the protocol: messages in, messages out, without network, files or clock."""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fedft.config.rules import MIN_MEMBERS
from fedft.errors import Code, FedftError
from fedft.secagg.advertisements import check_advertisement, check_distinct
from fedft.secagg.binding import bind
from fedft.secagg.client_state import ClientState
from fedft.secagg.cohort import Cohort
from fedft.secagg.identities import Identities
from fedft.secagg.journal import Journal, Step
from fedft.secagg.masking import mask_words
from fedft.secagg.messages import (
    Advertisement,
    Attestation,
    CohortRequest,
    Delivery,
    MaskedInput,
    MaskRequest,
    Roster,
    Shares,
    UnmaskReply,
    UnmaskRequest,
)
from fedft.secagg.packing import Packing
from fedft.secagg.session import DIGEST_BYTES, Session
from fedft.secagg.sharing import open_shares, share_out


class Client:
    """One member of a session: ``advertise``, ``share``, ``receive``, then for each round ``mask``, after
    drop-outs ``attest``, and ``unmask``.

    Guarantee: whatever the server and up to ``session.max_colluders`` members do, a vector that this client
    masked enters no more than one sum, which has at least ``threshold`` clients' vectors, and nothing else is
    learned of it; against a server that follows the protocol and looks on, with up to threshold - 1 members.
    Assumes pinned identities, a journal that is not set back, and the hardness on which X25519, HKDF-SHA256,
    AES-256, ChaCha20-Poly1305 and Ed25519 rest (Bonawitz et al., CCS 2017, section 6.2).

    A step that is refused changes nothing. ``state`` must be stored before a reply is sent; what must never
    happen twice is in the journal by itself before a method returns.

    Args:
        session: its terms, which the caller has compared with what it wants to take part in.
        key: the client's signing identity.
        identities: the members that it takes for real.
        journal: of this identity, for all its sessions.
        smallest_cohort: the fewest survivors among whom this site lets its vector be summed.
        state: as stored, to go on after a restart.

    Raises:
        FedftError: FEDFT-8803 to 8805 on identities, FEDFT-8813 on the smallest cohort.

    """

    def __init__(
        self,
        session: Session,
        key: Ed25519PrivateKey,
        identities: Identities,
        journal: Journal,
        *,
        smallest_cohort: int = MIN_MEMBERS,
        state: ClientState | None = None,
    ) -> None:
        self.session = session
        self.number = session.number_of(key.public_key().public_bytes_raw())
        self.state = state or ClientState.fresh(session.rounds)
        self._key = key
        self._identities = identities
        self._journal = journal
        self._smallest_cohort = smallest_cohort
        identities.check(session.members)
        self._expect_site_policy(len(session.members))

    def advertise(self) -> Advertisement:
        """Give the signed public keys; the same ones each time."""
        bare = self.state.advertisement(self.session, self.number)
        signature = self._key.sign(bare.statement(self.number))
        return Advertisement(bare.session, bare.sealing_key, bare.rounds, signature)

    def share(self, roster: Roster) -> Shares:
        """Share out this client's secrets among the roster, once in a session.

        Raises:
            FedftError: FEDFT-8806, 8808, 8809, 8811, 8813 (the roster), FEDFT-8820 (this client's own entry),
                FEDFT-8814 (shared before).

        """
        self._check_roster(roster)
        self._once(
            Step.SHARED, self.session.digest, Code.SHARED_ALREADY, "shared its secrets in this session"
        )
        own, sealed = share_out(self.session, self.state, self.number, roster)
        self._journal.append(Step.SHARED, self.session.digest, roster.digest)
        self.state.roster = roster
        self.state.held = {self.number: own}
        return Shares(self.session.digest, sealed)

    def receive(self, delivery: Delivery) -> None:
        """Open the others' shares. One that does not open is left out: only its dealer can lose by that.

        Given again, they are not looked at: what belongs to rounds that are over stays forgotten.

        Raises:
            FedftError: FEDFT-8809 to 8813 (the delivery), FEDFT-8816 (another cohort than before).

        """
        roster = self._roster()
        self.session.expect(delivery.session)
        cohort = delivery.cohort
        self._check_members(cohort)
        if not set(cohort) <= set(roster.members):
            raise FedftError(Code.COHORT_GREW, "a client of the cohort is not in the roster")
        if set(delivery.sealed) != set(cohort) - {self.number}:
            raise FedftError(Code.COHORT_LIST_INVALID, "the shares delivered are not those of the cohort")
        if self.state.cohort and self.state.cohort != cohort:
            raise FedftError(Code.COHORT_CHANGED, "the session's cohort is fixed and is another one")
        if self.state.cohort:
            return
        self.state.held |= open_shares(self.session, self.state, self.number, roster, delivery.sealed)
        self.state.cohort = cohort

    def mask(self, request: MaskRequest, digits: NDArray[np.integer]) -> MaskedInput:
        """Mask this round's digits, once in a run and round whatever the session.

        Args:
            request: round and payload, which the caller has compared with what it made the digits for.
            digits: (payload.elements,) integers from 0 to ``payload.largest``.

        Raises:
            FedftError: FEDFT-8809, 8810 (session and order), FEDFT-8803, 8804 (identities), FEDFT-8818, 8819
                (digits and payload), FEDFT-8815 (masked before).

        """
        self.expect_maskable(request)
        cohort, subject, payload = self._cohort(), self._subject(request.round), request.payload
        packing = Packing(payload.elements, payload.largest, len(cohort))
        words = packing.pack(digits)
        mask_words(words, self.session, self.state, self.number, self._roster(), request.round, cohort)
        data = packing.to_bytes(words)
        whole = self._statement(Cohort(cohort, cohort), request.round, payload.digest())
        covers = payload.digest() + whole + hashlib.sha256(data).digest()
        self._journal.append(Step.MASKED, subject, covers)
        return MaskedInput(self.session.digest, request.round, data, self._key.sign(whole))

    def expect_maskable(self, request: MaskRequest) -> None:
        """Raise what ``mask`` would whatever the digits, before they are made."""
        self.session.expect(request.session)
        self.session.place(request.round)
        self._identities.check(self.session.members[member] for member in self._cohort())
        self._once(
            Step.MASKED,
            self._subject(request.round),
            Code.MASKED_ALREADY,
            f"masked a vector for round {request.round}",
        )

    def attest(self, request: CohortRequest) -> Attestation:
        """Sign who survives; one cohort in a round.

        Raises:
            FedftError: FEDFT-8806, 8809 to 8813 (the request), FEDFT-8816 (signed another one), FEDFT-8817
                (unmasked already).

        """
        statement = self._check_cohort(request)[1]
        subject = self._subject(request.round)
        self._once(Step.UNMASKED, subject, Code.UNMASKED_ALREADY, f"unmasked round {request.round}")
        signed = self._journal.find(Step.SIGNED, subject)
        if signed is None:
            self._journal.append(Step.SIGNED, subject, statement)
        elif signed != statement:
            raise _another_cohort(request.round)
        return Attestation(self.session.digest, request.round, self._key.sign(statement))

    def unmask(self, request: UnmaskRequest) -> UnmaskReply:
        """Give shares of the survivors' seeds and of the drop-outs' keys, once in a round.

        Raises:
            FedftError: FEDFT-8806 to 8813 (the request and its signatures), FEDFT-8816 (not the cohort that
                this client signed), FEDFT-8817 (unmasked already).

        """
        cohort, statement = self._check_cohort(request)
        subject = self._subject(request.round)
        self._once(Step.UNMASKED, subject, Code.UNMASKED_ALREADY, f"unmasked round {request.round}")
        signed = self._journal.find(Step.SIGNED, subject)
        # The whole cohort was signed when masking, and stands as long as no smaller one was signed.
        if signed != statement and not (cohort.whole and signed is None):
            raise _another_cohort(request.round)
        cohort.check_attestations(request.attestations, statement, self.session)
        self._journal.append(Step.UNMASKED, subject, statement)
        place = self.session.place(request.round)
        shares = {
            dealer: held[2 * place + (0 if dealer in cohort.survivors else 1)]
            for dealer, held in self.state.held.items()
            if dealer in cohort.members
        }
        self.state.forget(place)
        return UnmaskReply(self.session.digest, request.round, shares)

    def _check_roster(self, roster: Roster) -> None:
        self.session.expect(roster.session)
        self._check_members(roster.members)
        if roster.advertisements[self.number] != self.advertise():
            raise FedftError(Code.LEFT_OUT, "the roster has other keys of this client than its own")
        for member, advertisement in roster.advertisements.items():
            check_advertisement(advertisement, member, self.session)
        check_distinct(roster)

    def _check_members(self, members: tuple[int, ...]) -> None:
        self.session.check_numbers(members)
        self.session.expect_enough(members)
        self._expect_site_policy(len(members))
        if self.number not in members:
            raise FedftError(Code.LEFT_OUT, "this client is not in the list that it is asked to go on with")

    def _check_cohort(self, request: CohortRequest | UnmaskRequest) -> tuple[Cohort, bytes]:
        """Give the request's cohort and what is signed of it, if this client masked this round for it."""
        self.session.expect(request.session)
        self.session.place(request.round)
        cohort = Cohort.of(request, self._cohort(), self.session)
        self._expect_site_policy(len(cohort.survivors))
        if self.number not in cohort.survivors:
            raise FedftError(
                Code.LEFT_OUT, "this client is not among the survivors and takes no further part"
            )
        covers = self._journal.find(Step.MASKED, self._subject(request.round)) or b""
        payload, whole = covers[:DIGEST_BYTES], covers[DIGEST_BYTES : 2 * DIGEST_BYTES]
        if whole != self._statement(Cohort(cohort.members, cohort.members), request.round, payload):
            raise FedftError(
                Code.OUT_OF_TURN,
                f"this client masked nothing for round {request.round} in this session",
            )
        return cohort, self._statement(cohort, request.round, payload)

    def _expect_site_policy(self, members: int) -> None:
        if members < self._smallest_cohort:
            raise FedftError(
                Code.POLICY_COHORT_TOO_SMALL,
                f"{members} clients, this site takes part in sums of {self._smallest_cohort}",
            )

    def _roster(self) -> Roster:
        if self.state.roster is None:
            raise FedftError(Code.OUT_OF_TURN, "this client has no keys of the others yet")
        return self.state.roster

    def _cohort(self) -> tuple[int, ...]:
        if not self.state.cohort:
            raise FedftError(Code.OUT_OF_TURN, "this client has no shares of the others yet")
        return self.state.cohort

    def _statement(self, cohort: Cohort, round: int, payload: bytes) -> bytes:
        return cohort.statement(self.session, self._roster(), round, payload)

    def _subject(self, round: int) -> bytes:
        return bind(b"round", self.session.run_id.encode(), round)

    def _once(self, step: Step, subject: bytes, code: Code, what: str) -> None:
        if self._journal.find(step, subject) is not None:
            raise FedftError(code, f"this client has {what} already")


def _another_cohort(round: int) -> FedftError:
    return FedftError(
        Code.COHORT_CHANGED,
        f"the cohort asked about is not the one that this client signed for round {round}",
        hint="the round is lost; a server that repeats it is at fault",
    )
