"""Who survives a round, and the signatures under it that open a client's shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedft.errors import Code, FedftError
from fedft.secagg.binding import bind, bind_members
from fedft.secagg.identities import verify
from fedft.secagg.messages import CohortRequest, Roster, UnmaskRequest
from fedft.secagg.session import Session


@dataclass(frozen=True)
class Cohort:
    """The members of U2 and those of them whose masked vectors are to be summed (U3)."""

    members: tuple[int, ...]
    survivors: tuple[int, ...]

    @classmethod
    def of(cls, request: CohortRequest | UnmaskRequest, members: tuple[int, ...], session: Session) -> Cohort:
        """Read a request that must split ``members`` in two.

        Raises:
            FedftError: FEDFT-8811 when the lists overlap, repeat or leave out a member, FEDFT-8812 when they
                name one that is not in ``members``, FEDFT-8806 when too few survive.

        """
        for numbers in (request.survivors, request.dropped):
            session.check_numbers(numbers)
        strangers = {*request.survivors, *request.dropped} - set(members)
        if strangers:
            raise FedftError(
                Code.COHORT_GREW,
                f"client {min(strangers)} is named and had no part in this step's cohort",
            )
        if sorted(request.survivors + request.dropped) != list(members):
            raise FedftError(
                Code.COHORT_LIST_INVALID,
                "the lists of survivors and of drop-outs overlap or leave out a member",
            )
        session.expect_enough(request.survivors)
        return cls(members, request.survivors)

    @property
    def dropped(self) -> tuple[int, ...]:
        """Members that do not survive."""
        return tuple(sorted(set(self.members) - set(self.survivors)))

    @property
    def whole(self) -> bool:
        """All survive."""
        return self.survivors == self.members

    def statement(self, session: Session, roster: Roster, round: int, payload: bytes) -> bytes:
        """Give what a client signs: these members survive, with these keys and the payload of this digest."""
        return bind(
            b"cohort",
            session.digest,
            roster.digest,
            round,
            payload,
            bind_members(self.members),
            bind_members(self.survivors),
        )

    def check_attestations(
        self, attestations: Mapping[int, bytes], statement: bytes, session: Session
    ) -> None:
        """Check the signatures that make the cohort this round's only one.

        A cohort with drop-outs needs the threshold: two such cohorts would need a client that signs both.
        The whole cohort needs all its members, who signed it when they masked.

        Raises:
            FedftError: FEDFT-8807 when too few survivors have signed, FEDFT-8808 when a signature fails.

        """
        needed = len(self.members) if self.whole else session.threshold
        if len(attestations) < needed or not set(attestations) <= set(self.survivors):
            raise FedftError(
                Code.COHORT_NOT_SIGNED,
                f"{len(attestations)} clients have signed this cohort, {needed} survivors must",
            )
        for member in sorted(attestations)[:needed]:
            verify(session.members[member], attestations[member], statement)
