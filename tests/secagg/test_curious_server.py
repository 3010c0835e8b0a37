"""What a server learns that looks on, colludes, restarts or lies: one sum, over enough clients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.errors import FedftError
from fedft.secagg.client_state import ClientState
from fedft.secagg.cohort import Cohort
from fedft.secagg.journal import MemoryJournal, Step
from fedft.secagg.masked_sum import MaskedSum
from fedft.secagg.messages import CohortRequest, Payload, UnmaskRequest
from fedft.secagg.packing import Packing
from tests.secagg.attacker import Attacker
from tests.secagg.federation import GRID, Digits, Dropouts, Federation, plain_sum, random_vectors

ELEMENTS, LARGEST = 40, 2


def snapshot(federation: Federation, members: range) -> dict[int, ClientState]:
    """The colluders' states before they forget a round."""
    session = federation.session
    return {
        member: ClientState.from_bytes(federation.clients[member].state.to_bytes(session), session)
        for member in members
    }


def attacker_on(federation: Federation, colluders: dict[int, ClientState]) -> Attacker:
    roster, cohort = federation.exchange.roster, federation.exchange.cohort
    assert roster is not None
    masked = {n: m.words for n, m in {**federation.traffic.masked, **federation.traffic.late}.items()}
    packing = Packing(ELEMENTS, LARGEST, len(cohort))
    attacker = Attacker(federation.session, roster, 7, packing, cohort, colluders, masked)
    for holder, reply in federation.traffic.replies.items():
        if holder not in colluders:
            attacker.take(holder, reply, federation.traffic.masked)
    return attacker


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(("count", "gone"), [(3, 0), (7, 0), (7, 2), (10, 3), (13, 4)])
def test_below_the_threshold_the_honest_sum_is_all_there_is(count: int, gone: int, restarts: bool) -> None:
    federation = Federation(count, restarts=restarts)
    vectors = random_vectors(count, ELEMENTS, LARGEST, count)
    federation.exchange_keys()
    colluders = snapshot(federation, range(federation.session.threshold - 1))
    late = range(count - gone, count)

    federation.sum(vectors, LARGEST, dropouts=Dropouts(masked=late))

    honest = frozenset(set(federation.traffic.masked) - set(colluders))
    learned = attacker_on(federation, colluders).learned()
    assert set(federation.traffic.late) == set(late)
    assert set(learned) == ({honest} if honest else set())
    assert all(np.array_equal(total, plain_sum(vectors, group)) for group, total in learned.items())


@pytest.mark.parametrize("gone", [0, 2])
def test_with_the_threshold_everything_is_lost(gone: int) -> None:
    """The attack is a real one: one colluder more, and it opens each vector, late ones too."""
    federation = Federation(7)
    vectors = random_vectors(7, ELEMENTS, LARGEST, 3)
    federation.exchange_keys()
    colluders = snapshot(federation, range(federation.session.threshold))

    federation.sum(vectors, LARGEST, dropouts=Dropouts(masked=range(7 - gone, 7)))

    learned = attacker_on(federation, colluders).learned()
    assert set(learned) == {frozenset({member}) for member in set(range(7)) - set(colluders)}
    assert all(np.array_equal(total, plain_sum(vectors, group)) for group, total in learned.items())


@pytest.mark.parametrize("step", ["masked", "attest", "unmask"])
def test_a_lost_round_gives_nothing(step: str) -> None:
    federation = Federation(7)
    federation.exchange_keys()
    colluders = snapshot(federation, range(2))
    dropouts = Dropouts(**{step: range(2, 5)})
    if step == "attest":
        dropouts = Dropouts(masked=[2], attest=[3, 4])

    with pytest.raises(FedftError, match="FEDFT-8822"):
        federation.sum(random_vectors(7, ELEMENTS, LARGEST, 0), LARGEST, dropouts=dropouts)

    assert attacker_on(federation, colluders).learned() == {}


class LyingServer:
    """Asks honest clients whatever it likes; colluders sign everything."""

    def __init__(self, count: int, vectors: dict[int, Digits]) -> None:
        self.federation = Federation(count)
        self.federation.exchange_keys()
        session = self.federation.session
        self.colluders = snapshot(self.federation, range(session.max_colluders))
        self.honest = [member for member in range(count) if member not in self.colluders]
        self.server = MaskedSum(self.federation.exchange, 7, Payload(ELEMENTS, LARGEST, GRID))
        for member in range(count):
            message = self.federation.clients[member].mask(self.server.request(), vectors[member])
            self.federation.traffic.masked[member] = message
        self.attacker = attacker_on(self.federation, self.colluders)
        self.signatures: dict[tuple[int, ...], dict[int, bytes]] = {}
        everyone = tuple(range(count))
        self.signatures[everyone] = {
            member: message.attestation for member, message in self.federation.traffic.masked.items()
        }

    def attest(self, member: int, survivors: tuple[int, ...]) -> None:
        signatures = self.signatures.setdefault(survivors, self._colluders_sign(survivors))
        request = CohortRequest(self.federation.session.digest, 7, survivors, self._dropped(survivors))
        try:
            signatures[member] = self.federation.clients[member].attest(request).signature
        except FedftError:
            return

    def unmask(self, member: int, survivors: tuple[int, ...]) -> None:
        if member not in survivors:
            return
        signatures = {n: s for n, s in self.signatures.get(survivors, {}).items() if n in survivors}
        request = UnmaskRequest(
            self.federation.session.digest, 7, survivors, self._dropped(survivors), signatures
        )
        try:
            self.attacker.take(member, self.federation.clients[member].unmask(request), survivors)
        except FedftError:
            return

    def _dropped(self, survivors: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(member for member in self.federation.exchange.cohort if member not in survivors)

    def _colluders_sign(self, survivors: tuple[int, ...]) -> dict[int, bytes]:
        federation = self.federation
        roster = federation.exchange.roster
        assert roster is not None
        cohort = Cohort(federation.exchange.cohort, survivors)
        payload = Payload(ELEMENTS, LARGEST, GRID).digest()
        statement = cohort.statement(federation.session, roster, 7, payload)
        return {n: federation.keys[n].sign(statement) for n in self.colluders if n in survivors}


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, int]], list[tuple[int, ...]]]:
    """A number of clients, a few cohorts, and a list of (what is asked, of whom, about which cohort)."""
    count = draw(st.integers(4, 10))
    cohorts = [tuple(range(count))]
    for _ in range(draw(st.integers(1, 3))):
        gone = draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=max(1, (count - 1) // 3)))
        cohorts.append(tuple(member for member in range(count) if member not in gone))
    asked = st.tuples(
        st.sampled_from(["attest", "unmask"]), st.integers(0, count - 1), st.integers(0, len(cohorts) - 1)
    )
    return count, draw(st.lists(asked, min_size=count, max_size=6 * count)), cohorts


@settings(max_examples=50, deadline=None)
@given(schedule=schedules())
def test_whatever_a_lying_server_asks_there_is_one_sum_at_most(
    schedule: tuple[int, list[tuple[str, int, int]], list[tuple[int, ...]]],
) -> None:
    count, questions, cohorts = schedule
    vectors = random_vectors(count, ELEMENTS, LARGEST, count)
    liar = LyingServer(count, vectors)

    for what, member, which in questions:
        if member in liar.honest:
            (liar.attest if what == "attest" else liar.unmask)(member, cohorts[which])
    for which, survivors in enumerate(cohorts):
        for member in liar.honest[which::2]:
            liar.attest(member, survivors)
    for survivors in cohorts:
        for member in liar.honest:
            liar.unmask(member, survivors)

    learned = liar.attacker.learned()
    session = liar.federation.session
    assert len(learned) <= 1
    for group, total in learned.items():
        assert len(group) >= session.threshold - session.max_colluders
        assert np.array_equal(total, plain_sum(vectors, group))


@pytest.mark.parametrize("set_back", [False, True])
def test_a_journal_that_is_set_back_would_give_a_client_away(set_back: bool) -> None:
    """The sums with and without client 6 exist only if clients sign and unmask twice."""
    vectors = random_vectors(7, ELEMENTS, LARGEST, 1)
    liar = LyingServer(7, vectors)
    session = liar.federation.session
    states = [client.state.to_bytes(session) for client in liar.federation.clients]
    for survivors in ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4, 5)):
        for member in liar.honest:
            if set_back:
                entries = liar.federation.journals[member]._entries
                for step, subject in list(entries):
                    if step in (Step.SIGNED, Step.UNMASKED):
                        del entries[step, subject]
                state = ClientState.from_bytes(states[member], session)
                liar.federation.clients[member] = liar.federation.client(member, state)
            if member in survivors[:6]:
                liar.attest(member, survivors)
        for member in liar.honest:
            liar.unmask(member, survivors)

    learned = liar.attacker.learned()
    assert (frozenset({6}) in learned) == set_back
    if set_back:
        assert np.array_equal(learned[frozenset({6})], vectors[6])


def test_a_colluding_minority_cannot_pass_two_cohorts_to_two_halves() -> None:
    """Half the honest clients are told one cohort, half another: neither gets its signatures."""
    vectors = random_vectors(10, ELEMENTS, LARGEST, 2)
    liar = LyingServer(10, vectors)
    halves = [(liar.honest[::2], 9), (liar.honest[1::2], 8)]
    for members, gone in halves:
        survivors = tuple(member for member in range(10) if member != gone)
        for member in members:
            liar.attest(member, survivors)
        for member in members:
            liar.unmask(member, survivors)

    assert liar.attacker.learned() == {}


class TestMaskedVectorsLookRandom:
    """On masked words of a constant vector; the bounds are six standard deviations."""

    @pytest.fixture(scope="class")
    @classmethod
    def bits(cls) -> np.ndarray:
        rows = []
        federation = Federation(3, rounds=2)
        federation.exchange_keys()
        for round in (7, 8):
            server = MaskedSum(federation.exchange, round, Payload(200_000, 2, GRID))
            for client in federation.clients:
                words = client.mask(server.request(), np.full(200_000, 2)).words
                rows.append(np.unpackbits(np.frombuffer(words, dtype=np.uint8)))
        return np.array(rows)

    def test_ones_and_zeros(self, bits: np.ndarray) -> None:
        size = bits.shape[1]
        assert np.abs(bits.sum(axis=1) - size / 2).max() < 6 * np.sqrt(size) / 2

    def test_bytes(self, bits: np.ndarray) -> None:
        for row in np.packbits(bits, axis=1):
            counts = np.bincount(row, minlength=256)
            chi_squared = ((counts - row.size / 256) ** 2 / (row.size / 256)).sum()
            assert abs(chi_squared - 255) < 6 * np.sqrt(2 * 255)

    @pytest.mark.parametrize("lag", [1, 2, 8, 61, 62, 64, 4096])
    def test_serial_correlation(self, bits: np.ndarray, lag: int) -> None:
        signs = 1.0 - 2.0 * bits
        products = (signs[:, lag:] * signs[:, :-lag]).sum(axis=1)
        assert np.abs(products).max() < 6 * np.sqrt(bits.shape[1])

    def test_clients_and_rounds_are_uncorrelated(self, bits: np.ndarray) -> None:
        signs = 1.0 - 2.0 * bits
        products = signs @ signs.T
        assert np.abs(products - np.diag(np.diag(products))).max() < 6 * np.sqrt(bits.shape[1])


def test_the_masked_words_do_not_depend_on_the_vector_by_more_than_the_vector() -> None:
    """With the same keys, other vectors differ by exactly the packed difference."""
    federation = Federation(3)
    federation.exchange_keys()
    server = MaskedSum(federation.exchange, 7, Payload(1000, 2, GRID))
    twin = federation.client(0, federation.clients[0].state)
    twin._journal = MemoryJournal()
    zeros, ones = np.zeros(1000, dtype=np.int64), np.ones(1000, dtype=np.int64)

    a = server.packing.from_bytes(federation.clients[0].mask(server.request(), zeros).words)
    b = server.packing.from_bytes(twin.mask(server.request(), ones).words)

    low_bits = np.uint64((1 << server.packing.width) - 1)
    assert np.array_equal((b - a) & low_bits, server.packing.pack(ones))


def test_changed_payloads_change_what_is_signed() -> None:
    federation = Federation(3)
    federation.exchange_keys()
    server = MaskedSum(federation.exchange, 7, Payload(10, 2, GRID))
    message = federation.clients[0].mask(server.request(), np.zeros(10, dtype=np.int64))
    other = MaskedSum(federation.exchange, 7, replace(server.payload, grid=bytes(32)))

    with pytest.raises(FedftError, match="FEDFT-8808"):
        other.take_masked(0, message)
