"""What the link asks of whoever keeps the list of enrolled keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedft.statements import LedgerWitness

Role = Literal["client", "viewer", "operator"]


@dataclass(frozen=True)
class Member:
    """An enrolled key: ``fingerprint`` of its TLS key, the name, the role and the key it signs with."""

    fingerprint: str
    name: str
    role: Role
    signing_key: Ed25519PublicKey | None = None


class MemberDirectory(Protocol):
    """The list of enrolled keys, asked at every call so that a revocation holds at once."""

    def require(self, fingerprint: str, *roles: Role) -> Member:
        """Return the member with this key.

        Raises:
            FedftError: FEDFT-7032 never enrolled, FEDFT-7033 revoked, FEDFT-6207 another role.

        """
        ...

    def witness(self, member: str, shown: LedgerWitness) -> None:
        """Keep an entry that a member has shown of its ledger.

        Raises:
            FedftError: FEDFT-8211 when it has shown another entry of this number before.

        """
        ...

    def last_witness(self, member: str) -> LedgerWitness | None:
        """Return the entry of the highest number that a member has shown; None when it has shown none."""
        ...

    def incident(self, member: str, code: str, message: str) -> None:
        """Note something that the operator should look at."""
        ...
