"""A whole federation in one process: every message goes through its bytes, everyone may be restarted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fedft.secagg import decode as wire
from fedft.secagg.client import Client
from fedft.secagg.client_state import ClientState
from fedft.secagg.encode import encode
from fedft.secagg.identities import Identities
from fedft.secagg.journal import MemoryJournal
from fedft.secagg.key_exchange import KeyExchange
from fedft.secagg.masked_sum import MaskedSum, SecureSum
from fedft.secagg.masked_sum_state import masked_sum_from_bytes, masked_sum_to_bytes
from fedft.secagg.messages import (
    CohortRequest,
    MaskedInput,
    Payload,
    UnmaskReply,
    UnmaskRequest,
)
from fedft.secagg.session import Session, smallest_threshold

Digits = NDArray[np.int64]
Message = TypeVar("Message")
FRAME = b"\x05" * 32
GRID = b"\x06" * 32


def sorted_keys(count: int) -> list[Ed25519PrivateKey]:
    keys = [Ed25519PrivateKey.generate() for _ in range(count)]
    return sorted(keys, key=lambda key: key.public_key().public_bytes_raw())


def make_session(
    keys: Collection[Ed25519PrivateKey], *, threshold: int = 0, rounds: int = 1, first_round: int = 7
) -> Session:
    members = tuple(key.public_key().public_bytes_raw() for key in keys)
    chosen = threshold or smallest_threshold(len(members))
    return Session("run-1", first_round, rounds, FRAME, members, chosen)


@dataclass
class Dropouts:
    """Members missing from each step on; a later step misses the earlier ones' as well."""

    keys: Collection[int] = ()
    shares: Collection[int] = ()
    masked: Collection[int] = ()
    attest: Collection[int] = ()
    unmask: Collection[int] = ()


@dataclass
class Traffic:
    """What the server has seen of one round."""

    masked: dict[int, MaskedInput] = field(default_factory=dict)
    replies: dict[int, UnmaskReply] = field(default_factory=dict)
    late: dict[int, MaskedInput] = field(default_factory=dict)


class Federation:
    def __init__(
        self, count: int, *, threshold: int = 0, rounds: int = 1, restarts: bool = False, smallest: int = 3
    ) -> None:
        self.keys = sorted_keys(count)
        self.session = make_session(self.keys, threshold=threshold, rounds=rounds)
        self.identities = Identities(frozenset(self.session.members))
        self.journals = [MemoryJournal() for _ in self.keys]
        self.smallest = smallest
        self.clients = [self.client(number) for number in range(count)]
        self.exchange = KeyExchange(self.session)
        self.restarts = restarts
        self.traffic = Traffic()
        self.upload = [0] * count

    def client(self, number: int, state: ClientState | None = None) -> Client:
        return Client(
            self.session,
            self.keys[number],
            self.identities,
            self.journals[number],
            smallest_cohort=self.smallest,
            state=state,
        )

    def restart_client(self, number: int) -> None:
        stored = self.clients[number].state.to_bytes(self.session)
        self.clients[number] = self.client(number, ClientState.from_bytes(stored, self.session))

    def restart_all(self) -> None:
        if self.restarts:
            for number in range(len(self.clients)):
                self.restart_client(number)
            self.exchange = KeyExchange.from_bytes(self.exchange.to_bytes(), self.session)

    def sent(self, number: int, message: object) -> bytes:
        data = encode(message)
        self.upload[number] += len(data)
        return data

    def exchange_keys(self, dropouts: Dropouts | None = None) -> None:
        missing = dropouts or Dropouts()
        everyone = range(len(self.clients))
        gone = set(missing.keys)
        for number in everyone:
            if number not in gone:
                data = self.sent(number, self.clients[number].advertise())
                self.exchange.take_advertisement(number, wire.decode_advertisement(data))
        self.restart_all()
        roster = wire.decode_roster(encode(self.exchange.close_advertisements()))
        gone |= set(missing.shares)
        for number in roster.members:
            if number not in gone:
                data = self.sent(number, self.clients[number].share(roster))
                self.exchange.take_shares(number, wire.decode_shares(data))
        self.restart_all()
        for number in self.exchange.close_shares():
            delivery = wire.decode_delivery(encode(self.exchange.delivery(number)))
            self.clients[number].receive(delivery)
        self.restart_all()

    def sum(
        self,
        vectors: Mapping[int, Digits],
        largest: int,
        *,
        round: int = 7,
        dropouts: Dropouts | None = None,
    ) -> SecureSum:
        missing = dropouts or Dropouts()
        elements = next(iter(vectors.values())).size
        server = MaskedSum(self.exchange, round, Payload(elements, largest, GRID))
        self.traffic = Traffic()
        gone = set(missing.masked)
        self._mask(server, vectors, gone)
        server = self._restarted(server)
        request = server.close_masked()
        self._mask_late(server, vectors, gone)
        gone |= set(missing.attest)
        if isinstance(request, CohortRequest):
            cohort_request = wire.decode_cohort_request(encode(request))
            for number in set(server.survivors) - gone:
                data = self.sent(number, self.clients[number].attest(cohort_request))
                server.take_attestation(number, wire.decode_attestation(data))
            server = self._restarted(server)
            request = server.close_attestations()
        gone |= set(missing.unmask)
        return self._unmask(server, request, gone)

    def _mask(self, server: MaskedSum, vectors: Mapping[int, Digits], gone: set[int]) -> None:
        for number in set(self.exchange.cohort) - gone:
            masked = self.clients[number].mask(
                wire.decode_mask_request(encode(server.request())), vectors[number]
            )
            masked = wire.decode_masked_input(self.sent(number, masked), server.packing.nbytes)
            self.traffic.masked[number] = masked
            server.take_masked(number, masked)

    def _mask_late(self, server: MaskedSum, vectors: Mapping[int, Digits], gone: set[int]) -> None:
        """Those who missed the step answer it after it was closed."""
        for number in set(self.exchange.cohort) & gone:
            self.traffic.late[number] = self.clients[number].mask(server.request(), vectors[number])

    def _unmask(self, server: MaskedSum, request: UnmaskRequest, gone: set[int]) -> SecureSum:
        request = wire.decode_unmask_request(encode(request))
        for number in set(server.survivors) - gone:
            data = self.sent(number, self.clients[number].unmask(request))
            self.traffic.replies[number] = wire.decode_unmask_reply(data)
            server.take_shares(number, self.traffic.replies[number])
        return self._restarted(server).finish()

    def _restarted(self, server: MaskedSum) -> MaskedSum:
        self.restart_all()
        if not self.restarts:
            return server
        return masked_sum_from_bytes(masked_sum_to_bytes(server), self.exchange)


def random_vectors(count: int, elements: int, largest: int, seed: int) -> dict[int, Digits]:
    rng = np.random.default_rng(seed)
    return {number: rng.integers(0, largest, size=elements, endpoint=True) for number in range(count)}


def plain_sum(vectors: Mapping[int, Digits], members: Collection[int]) -> Digits:
    total = np.zeros_like(next(iter(vectors.values())))
    for member in members:
        total += vectors[member]
    return total
