"""What clients and server send each other, in the order of the protocol.

Clients are numbered by their place in the session's list of members. Who sent a message is known from the
carrier, or from where the message stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedft.secagg.binding import bind


@dataclass(frozen=True)
class RoundKeys:
    """A client's public keys of one round: X25519 for its pairwise masks, and the commitment to its seed."""

    mask_key: bytes
    commitment: bytes


@dataclass(frozen=True)
class Advertisement:
    """Step 1, to the server: a client's public keys, signed with its identity.

    ``sealing_key`` (X25519) is for the shares that others encrypt to it.
    """

    session: bytes
    sealing_key: bytes
    rounds: tuple[RoundKeys, ...]
    signature: bytes = b""

    def statement(self, member: int) -> bytes:
        """Give what is signed."""
        keys = [field for keys in self.rounds for field in (keys.mask_key, keys.commitment)]
        return bind(b"keys", self.session, member, self.sealing_key, *keys)


@dataclass(frozen=True)
class Roster:
    """Step 2, to every client: the advertisements of all who sent one (U1)."""

    session: bytes
    advertisements: Mapping[int, Advertisement]

    @property
    def members(self) -> tuple[int, ...]:
        """Their numbers, ascending."""
        return tuple(sorted(self.advertisements))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over all keys."""
        statements = [self.advertisements[member].statement(member) for member in self.members]
        return bind(b"roster", self.session, *statements)


@dataclass(frozen=True)
class Shares:
    """Step 2, to the server: a client's shares, sealed for each other member of the roster."""

    session: bytes
    sealed: Mapping[int, bytes]


@dataclass(frozen=True)
class Delivery:
    """Step 3, to one client: what the others sealed for it. ``cohort`` (U2): all who shared, it too."""

    session: bytes
    cohort: tuple[int, ...]
    sealed: Mapping[int, bytes]


@dataclass(frozen=True)
class Payload:
    """A round's vector: number of digits, the largest digit, and the digest of the grid they stand on."""

    elements: int
    largest: int
    grid: bytes

    def digest(self) -> bytes:
        """SHA-256 over all of it."""
        return bind(b"payload", self.elements, self.largest, self.grid)


@dataclass(frozen=True)
class MaskRequest:
    """Step 3, to every client of U2: mask this round's vector."""

    session: bytes
    round: int
    payload: Payload


@dataclass(frozen=True)
class RoundRequest:
    """What a round of training is told: the request to mask, and the sizes that its grid is made for.

    ``sizes`` has one positive float32 for each exchanged tensor.
    """

    mask: MaskRequest
    sizes: tuple[float, ...]


@dataclass(frozen=True)
class MaskedInput:
    """Step 3, to the server: the masked words, and a signature on "all of U2 survive"."""

    session: bytes
    round: int
    words: bytes
    attestation: bytes


@dataclass(frozen=True)
class CohortRequest:
    """Step 4, only after drop-outs, to every survivor: sign that these survive (U3)."""

    session: bytes
    round: int
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True)
class Attestation:
    """Step 4, to the server: a survivor's signature on the cohort."""

    session: bytes
    round: int
    signature: bytes


@dataclass(frozen=True)
class UnmaskRequest:
    """Step 5, to every survivor: give shares, since these have signed the cohort."""

    session: bytes
    round: int
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    attestations: Mapping[int, bytes]


@dataclass(frozen=True)
class UnmaskReply:
    """Step 5, to the server: one share for each member of U2.

    A survivor's is of the seed of its own mask, a dropped one's of the seed of its private key of the round.
    """

    session: bytes
    round: int
    shares: Mapping[int, int]
