"""The terms of a key exchange: who takes part, for which rounds, and how many must survive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from fedft.config.rules import MAX_MEMBERS, MIN_MEMBERS
from fedft.errors import Code, FedftError
from fedft.secagg.binding import bind

MAX_ROUNDS = 32
MAX_ROUND = 1 << 31
MAX_RUN_ID = 256
IDENTITY_BYTES = DIGEST_BYTES = 32


def smallest_threshold(members: int) -> int:
    """Give ⌊2n/3⌋ + 1, the smallest threshold for clients that may collude with an active server.

    Bonawitz et al. (CCS 2017), section 6 and figure 6: with ``c`` colluding clients no two cohorts of one
    round can both be unmasked while 2t > n + c, which holds for c below n/3 at this threshold.
    """
    return 2 * members // 3 + 1


@dataclass(frozen=True)
class Session:
    """One key exchange, for ``rounds`` consecutive rounds.

    Members are numbered by their place in ``members``. Everything that is signed or derived in the session
    is bound to ``digest``, thus to run, rounds, frame, members and threshold.

    Args:
        run_id: the run.
        first_round: the first round whose masks these keys make.
        rounds: number of rounds, each with keys of its own.
        frame_digest: SHA-256 of the adapters' frame, 32 bytes.
        members: raw Ed25519 public keys of the clients asked, 32 bytes each, ascending.
        threshold: how many clients must stay until the end of a round, more than two thirds of the members.

    Raises:
        FedftError: FEDFT-8801 (out of range), FEDFT-8802 (threshold).

    """

    run_id: str
    first_round: int
    rounds: int
    frame_digest: bytes
    members: tuple[bytes, ...]
    threshold: int

    def __post_init__(self) -> None:
        good = (
            0 < len(self.run_id) <= MAX_RUN_ID
            and 0 <= self.first_round < MAX_ROUND
            and 1 <= self.rounds <= MAX_ROUNDS
            and len(self.frame_digest) == DIGEST_BYTES
            and MIN_MEMBERS <= len(self.members) <= MAX_MEMBERS
            and all(len(member) == IDENTITY_BYTES for member in self.members)
            and list(self.members) == sorted(set(self.members))
        )
        if not good:
            raise FedftError(
                Code.SESSION_TERMS_INVALID,
                f"a session of {len(self.members)} members for {self.rounds} rounds from {self.first_round}",
                hint=f"{MIN_MEMBERS} to {MAX_MEMBERS} distinct members in order, 1 to {MAX_ROUNDS} rounds",
            )
        if not smallest_threshold(len(self.members)) <= self.threshold <= len(self.members):
            raise FedftError(
                Code.THRESHOLD_TOO_LOW,
                f"threshold {self.threshold} for {len(self.members)} members",
                hint=f"at least {smallest_threshold(len(self.members))}: more than two thirds",
            )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over all terms."""
        return bind(
            b"session",
            self.run_id.encode(),
            self.first_round,
            self.rounds,
            self.frame_digest,
            self.threshold,
            *self.members,
        )

    @property
    def max_dropouts(self) -> int:
        """How many members may be missing at the end of a round."""
        return len(self.members) - self.threshold

    @property
    def max_colluders(self) -> int:
        """How many clients may collude with an active server: the largest c with 2t > n + c."""
        return 2 * self.threshold - len(self.members) - 1

    def place(self, round: int) -> int:
        """Give a round's place among the session's; raises FEDFT-8809 for a round that it does not cover."""
        if not self.first_round <= round < self.first_round + self.rounds:
            raise FedftError(
                Code.SESSION_MISMATCH, f"round {round} is none of the session's {self.rounds} rounds"
            )
        return round - self.first_round

    def number_of(self, identity: bytes) -> int:
        """Give a member's number; raises FEDFT-8805 when it is none."""
        if identity not in self.members:
            raise FedftError(Code.NOT_A_MEMBER, f"identity {identity.hex()[:16]} is no member of the session")
        return self.members.index(identity)

    def expect(self, digest: bytes) -> None:
        """Raise FEDFT-8809 unless a message names this session."""
        if digest != self.digest:
            raise FedftError(
                Code.SESSION_MISMATCH,
                f"the message is of session {digest.hex()[:16]}, this is {self.digest.hex()[:16]}",
            )

    def expect_enough(self, members: Sequence[int]) -> None:
        """Raise FEDFT-8806 for fewer members than the threshold."""
        if len(members) < self.threshold:
            raise FedftError(
                Code.COHORT_TOO_SMALL,
                f"{len(members)} clients are left, the threshold is {self.threshold}",
            )

    def check_numbers(self, members: Sequence[int]) -> None:
        """Raise FEDFT-8811 unless these are distinct members' numbers in ascending order."""
        ascending = all(a < b for a, b in pairwise(members))
        if not ascending or (members and not 0 <= members[0] <= members[-1] < len(self.members)):
            raise FedftError(
                Code.COHORT_LIST_INVALID,
                "a list of clients is not in order, or names one that does not exist",
            )
