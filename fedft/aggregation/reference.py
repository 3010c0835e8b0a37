"""What every update of a round must name before its values are looked at."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fedft.errors import Code, FedftError
from fedft.wire.messages import ModelRef, RoundRef, Update


@dataclass(frozen=True)
class UpdateReference:
    """A round, the digests that its updates name, and the clients that were asked."""

    round: RoundRef
    model: ModelRef
    cohort: frozenset[str]

    def check(self, client_key: str, update: Update, counted: Collection[str]) -> None:
        """Check an update of an authenticated client; ``counted`` are those that have one in the round.

        Raises:
            FedftError: FEDFT-5001 to 5007 and 5015.

        """
        if update.round != self.round:
            raise FedftError(
                Code.UPDATE_WRONG_ROUND, f"the update is for {_at(update.round)}, this is {_at(self.round)}"
            )
        if client_key not in self.cohort:
            raise FedftError(Code.CLIENT_NOT_SAMPLED, f"client {client_key[:16]} was not asked in this round")
        if update.client_id != client_key:
            raise FedftError(
                Code.UPDATE_WRONG_CLIENT,
                f"client {client_key[:16]} sent an update of {update.client_id[:16]}",
            )
        if client_key in counted:
            raise FedftError(
                Code.DUPLICATE_UPDATE, f"client {client_key[:16]} has an update in this round already"
            )
        mine, theirs = self.model, update.model
        _same(Code.UPDATE_WRONG_BASE, "base model", mine.base_digest, theirs.base_digest)
        _same(Code.UPDATE_WRONG_FRAME, "frame", mine.frame_digest, theirs.frame_digest)
        _same(Code.UPDATE_WRONG_MANIFEST, "manifest", mine.manifest_digest, theirs.manifest_digest)
        _same(Code.UPDATE_WRONG_STATE, "global state", mine.global_state_digest, theirs.global_state_digest)


def _same(code: str, what: str, expected: str, got: str) -> None:
    if expected != got:
        raise FedftError(
            code, f"{what} digest mismatch: this round is on {expected[:12]}, the update on {got[:12]}"
        )


def _at(ref: RoundRef) -> str:
    return f"run {ref.run_id[:40]} round {ref.round}"
