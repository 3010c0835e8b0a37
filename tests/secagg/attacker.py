"""A server that keeps everything it saw and colludes with some clients: what sums can it compute?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedft.secagg.client_state import ClientState
from fedft.secagg.keys import agree, mask_private, pair_mask_key, self_mask_key
from fedft.secagg.masks import add_mask
from fedft.secagg.messages import Roster, UnmaskReply
from fedft.secagg.packing import Packing
from fedft.secagg.session import Session
from fedft.secagg.shamir import combine

SEED, MASK_KEY = 0, 1


@dataclass
class Attacker:
    """Knows the traffic of one round, and the colluders' states as they were before they unmasked.

    Attributes:
        masked: every masked vector that it ever got, late ones too.

    """

    session: Session
    roster: Roster
    round: int
    packing: Packing
    cohort: tuple[int, ...]
    colluders: Mapping[int, ClientState]
    masked: Mapping[int, bytes]
    shares: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        place = self.session.place(self.round)
        for holder, state in self.colluders.items():
            for dealer, held in state.held.items():
                for kind in (SEED, MASK_KEY):
                    self.shares.setdefault((dealer, kind), {})[holder] = held[2 * place + kind]

    def take(self, holder: int, reply: UnmaskReply, survivors: Collection[int]) -> None:
        """Keep an honest client's answer to a request that named these survivors."""
        for dealer, share in reply.shares.items():
            kind = SEED if dealer in survivors else MASK_KEY
            self.shares.setdefault((dealer, kind), {})[holder] = share

    def secret(self, member: int, kind: int) -> bytes | None:
        """A member's seed of its own mask or of its mask key, if it colludes or enough shares are known."""
        if member in self.colluders:
            secrets = self.colluders[member].rounds[self.session.place(self.round)]
            return secrets.seed if kind == SEED else secrets.key_seed
        known = self.shares.get((member, kind), {})
        if len(known) < self.session.threshold:
            return None
        holders = sorted(known)[: self.session.threshold]
        return combine([holder + 1 for holder in holders], [known[holder] for holder in holders])

    def learned(self) -> dict[frozenset[int], NDArray[np.int64]]:
        """Every smallest set of honest clients whose sum of vectors follows from what is known, with the sum.

        A masked vector is opened but for the pairwise masks of which neither end's key is known. Those cancel
        in the sum over a connected set of clients; all further sums are sums of these.
        """
        keys = {member: self.secret(member, MASK_KEY) for member in self.cohort}
        seeds = {member: self.secret(member, SEED) for member in self.cohort}
        honest = [member for member in self.masked if member not in self.colluders]
        sums = {}
        while honest:
            group = [honest.pop()]
            for member in group:
                unknown = [other for other in self.cohort if other not in group and not keys[other]]
                if keys[member] is None:
                    group += unknown
            honest = [member for member in honest if member not in group]
            if all(seeds[member] is not None and member in self.masked for member in group):
                sums[frozenset(group)] = self._open(group, keys, seeds)
        return sums

    def _open(
        self, group: list[int], keys: Mapping[int, bytes | None], seeds: Mapping[int, bytes | None]
    ) -> NDArray[np.int64]:
        words = np.zeros(self.packing.words, dtype=np.uint64)
        for member in group:
            words += self.packing.from_bytes(self.masked[member])
            seed = seeds[member]
            assert seed is not None
            key = self_mask_key(seed, self.session.digest, self.round, member)
            add_mask(words, key, subtract=True)
            for other in set(self.cohort) - set(group):
                own = keys[member] or keys[other]
                assert own is not None
                public = self._public(other if keys[member] else member)
                holder = member if keys[member] else other
                private = mask_private(own, self.session.digest, self.round, holder)
                secret = agree(private, public)
                pair = pair_mask_key(secret, self.session.digest, self.round, member, other)
                add_mask(words, pair, subtract=member < other)
        return self.packing.unpack(words, len(group))

    def _public(self, member: int) -> bytes:
        return self.roster.advertisements[member].rounds[self.session.place(self.round)].mask_key
