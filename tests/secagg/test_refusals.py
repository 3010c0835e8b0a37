"""Every refusal of either side: its code, and that nothing was given away or changed by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.errors import FedftError
from fedft.secagg.client import Client
from fedft.secagg.client_state import ClientState
from fedft.secagg.identities import Identities
from fedft.secagg.journal import MemoryJournal, Step
from fedft.secagg.key_exchange import KeyExchange
from fedft.secagg.masked_sum import MaskedSum
from fedft.secagg.masked_sum_state import masked_sum_from_bytes, masked_sum_to_bytes
from fedft.secagg.messages import (
    Advertisement,
    CohortRequest,
    Payload,
    Roster,
    RoundKeys,
    UnmaskRequest,
)
from fedft.secagg.session import Session, smallest_threshold
from tests.secagg.federation import FRAME, GRID, Dropouts, Federation, make_session, sorted_keys

COUNT = 7
PAYLOAD = Payload(20, 2, GRID)
DIGITS = np.zeros(20, dtype=np.int64)


@pytest.fixture
def federation() -> Federation:
    made = Federation(COUNT)
    made.exchange_keys()
    return made


def masked(federation: Federation, gone: tuple[int, ...] = (0,)) -> tuple[MaskedSum, CohortRequest]:
    server = MaskedSum(federation.exchange, 7, PAYLOAD)
    for number in range(COUNT):
        if number not in gone:
            server.take_masked(number, federation.clients[number].mask(server.request(), DIGITS))
    request = server.close_masked()
    assert isinstance(request, CohortRequest)
    return server, request


def attested(federation: Federation, gone: tuple[int, ...] = (0,)) -> tuple[MaskedSum, UnmaskRequest]:
    server, request = masked(federation, gone)
    for number in server.survivors:
        server.take_attestation(number, federation.clients[number].attest(request))
    return server, server.close_attestations()


def refused(code: str, action: Callable[[], object]) -> None:
    with pytest.raises(FedftError) as caught:
        action()
    assert caught.value.code == code, str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": ""},
        {"run_id": "x" * 300},
        {"first_round": -1},
        {"rounds": 0},
        {"rounds": 33},
        {"frame_digest": b"short"},
        {"members": ()},
        {"members": (b"\x01" * 31, b"\x02" * 32, b"\x03" * 32)},
        {"members": (b"\x02" * 32, b"\x01" * 32, b"\x03" * 32)},
        {"members": (b"\x01" * 32, b"\x01" * 32, b"\x03" * 32)},
    ],
)
def test_sessions_out_of_range(change: dict[str, object]) -> None:
    terms: dict[str, object] = {
        "run_id": "run",
        "first_round": 1,
        "rounds": 1,
        "frame_digest": FRAME,
        "members": tuple(bytes([number]) * 32 for number in (1, 2, 3)),
        "threshold": 3,
    }
    refused("FEDFT-8801", lambda: Session(**(terms | change)))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 9, 10, 100])
def test_the_threshold_is_above_two_thirds(count: int) -> None:
    keys = sorted_keys(count)

    assert 3 * smallest_threshold(count) > 2 * count >= 3 * (smallest_threshold(count) - 1)
    for threshold in (smallest_threshold(count) - 1, count + 1):
        refused("FEDFT-8802", partial(make_session, keys, threshold=threshold))
    session = make_session(keys)
    assert 2 * session.threshold > count + session.max_colluders
    assert session.max_colluders >= (count - 1) // 3


def test_unknown_revoked_and_foreign_identities() -> None:
    keys = sorted_keys(4)
    session = make_session(keys)
    known = frozenset(session.members)
    stranger = Ed25519PrivateKey.generate()

    def client(key: Ed25519PrivateKey, identities: Identities) -> Client:
        return Client(session, key, identities, MemoryJournal())

    refused("FEDFT-8803", lambda: client(keys[0], Identities(known - {session.members[2]})))
    refused("FEDFT-8804", lambda: client(keys[0], Identities(known, frozenset({session.members[2]}))))
    refused("FEDFT-8805", lambda: client(stranger, Identities(known)))


def test_an_identity_revoked_in_the_middle_masks_nothing(federation: Federation) -> None:
    client = federation.clients[1]
    revoked = frozenset({federation.session.members[2]})
    federation.identities = Identities(frozenset(federation.session.members), revoked)
    refused("FEDFT-8804", lambda: federation.client(1, client.state))
    client._identities = federation.identities

    refused("FEDFT-8804", lambda: client.mask(MaskedSum(federation.exchange, 7, PAYLOAD).request(), DIGITS))
    assert federation.journals[1].find(Step.MASKED, client._subject(7)) is None


def test_too_small_for_the_sites_policy() -> None:
    with pytest.raises(FedftError, match="FEDFT-8813"):
        Federation(5, smallest=6)
    federation = Federation(5, threshold=4, smallest=5)
    federation.exchange_keys()
    with pytest.raises(FedftError, match="FEDFT-8813"):
        federation.sum(dict.fromkeys(range(5), DIGITS), 2, dropouts=Dropouts(masked=[0]))
    refused("FEDFT-8813", lambda: Federation(5, threshold=4, smallest=5).exchange_keys(Dropouts(keys=[0])))


class TestRoster:
    @pytest.fixture
    def exchange(self) -> Federation:
        federation = Federation(4)
        for number, client in enumerate(federation.clients):
            federation.exchange.take_advertisement(number, client.advertise())
        return federation

    def test_fewer_than_the_threshold(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        few = Roster(roster.session, {n: roster.advertisements[n] for n in (0, 1)})
        refused("FEDFT-8806", lambda: exchange.clients[0].share(few))

    def test_another_session(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        refused("FEDFT-8809", lambda: exchange.clients[0].share(replace(roster, session=bytes(32))))

    def test_without_this_client_or_with_other_keys_for_it(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        without = Roster(roster.session, {n: roster.advertisements[n] for n in (1, 2, 3)})
        refused("FEDFT-8820", lambda: exchange.clients[0].share(without))
        fresh = exchange.client(0).advertise()
        other = Roster(roster.session, {**roster.advertisements, 0: fresh})
        refused("FEDFT-8820", lambda: exchange.clients[0].share(other))

    def test_keys_that_the_server_made(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        forged = replace(roster.advertisements[2], sealing_key=b"\x09" * 32)
        refused("FEDFT-8808", lambda: exchange.clients[0].share(replaced(roster, 2, forged)))

    def test_keys_of_one_member_under_the_name_of_another(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        refused(
            "FEDFT-8808", lambda: exchange.clients[0].share(replaced(roster, 2, roster.advertisements[3]))
        )

    def test_one_key_twice(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        keys = roster.advertisements[3]
        copied = Advertisement(keys.session, keys.sealing_key, keys.rounds)
        signature = exchange.keys[2].sign(copied.statement(2))
        refused(
            "FEDFT-8808",
            lambda: exchange.clients[0].share(replaced(roster, 2, replace(copied, signature=signature))),
        )

    def test_other_numbers_of_rounds(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        keys = roster.advertisements[2]
        longer = replace(keys, rounds=(*keys.rounds, RoundKeys(b"\x03" * 32, b"\x04" * 32)))
        signed = replace(longer, signature=exchange.keys[2].sign(longer.statement(2)))
        refused("FEDFT-8808", lambda: exchange.clients[0].share(replaced(roster, 2, signed)))

    def test_shared_twice(self, exchange: Federation) -> None:
        roster = exchange.exchange.close_advertisements()
        old = exchange.clients[0].state.to_bytes(exchange.session)
        exchange.clients[0].share(roster)
        refused("FEDFT-8814", lambda: exchange.clients[0].share(roster))
        restored = exchange.client(0, ClientState.from_bytes(old, exchange.session))
        refused("FEDFT-8814", lambda: restored.share(roster))


def replaced(roster: Roster, member: int, advertisement: Advertisement) -> Roster:
    return Roster(roster.session, {**roster.advertisements, member: advertisement})


class TestDelivery:
    def test_cohorts_only_shrink(self) -> None:
        federation = Federation(7)
        for number in range(6):
            federation.exchange.take_advertisement(number, federation.clients[number].advertise())
        roster = federation.exchange.close_advertisements()
        for number in roster.members:
            federation.exchange.take_shares(number, federation.clients[number].share(roster))
        federation.exchange.close_shares()
        delivery = federation.exchange.delivery(1)
        client = federation.clients[1]

        grown = replace(delivery, cohort=(*delivery.cohort, 6))
        refused("FEDFT-8812", lambda: client.receive(grown))
        refused("FEDFT-8811", lambda: client.receive(replace(delivery, cohort=delivery.cohort[::-1])))
        refused("FEDFT-8811", lambda: client.receive(replace(delivery, cohort=(0, 1, 2, 3, 4))))
        refused("FEDFT-8806", lambda: client.receive(replace(delivery, cohort=(0, 1, 2, 3))))
        refused("FEDFT-8820", lambda: client.receive(replace(delivery, cohort=(0, 2, 3, 4, 5))))
        refused("FEDFT-8809", lambda: client.receive(replace(delivery, session=bytes(32))))
        client.receive(delivery)
        smaller = {n: delivery.sealed[n] for n in (0, 2, 3, 4)}
        refused(
            "FEDFT-8816", lambda: client.receive(replace(delivery, cohort=(0, 1, 2, 3, 4), sealed=smaller))
        )

    def test_out_of_order(self) -> None:
        federation = Federation(4)
        done = Federation(4)
        done.exchange_keys()
        client = federation.clients[0]

        refused("FEDFT-8810", lambda: client.receive(done.exchange.delivery(0)))
        request = replace(MaskedSum(done.exchange, 7, PAYLOAD).request(), session=federation.session.digest)
        refused("FEDFT-8810", lambda: client.mask(request, DIGITS))

    def test_a_share_that_does_not_open_harms_its_dealer_alone(self) -> None:
        federation = Federation(7)
        for number, client in enumerate(federation.clients):
            federation.exchange.take_advertisement(number, client.advertise())
        roster = federation.exchange.close_advertisements()
        for number, client in enumerate(federation.clients):
            shares = client.share(roster)
            if number == 3:
                shares = replace(shares, sealed={**shares.sealed, 0: bytes(len(shares.sealed[0]))})
            federation.exchange.take_shares(number, shares)
        for number in federation.exchange.close_shares():
            federation.clients[number].receive(federation.exchange.delivery(number))

        result = federation.sum({n: DIGITS + n % 2 for n in range(7)}, 2)

        assert 3 not in federation.traffic.replies[0].shares
        assert result.digits.tolist() == [3] * 20


class TestMasking:
    def test_never_twice(self, federation: Federation) -> None:
        request = MaskedSum(federation.exchange, 7, PAYLOAD).request()
        old = federation.clients[1].state.to_bytes(federation.session)
        federation.clients[1].mask(request, DIGITS)

        refused("FEDFT-8815", lambda: federation.clients[1].mask(request, DIGITS))
        refused("FEDFT-8815", lambda: federation.clients[1].mask(request, DIGITS + 1))
        restored = federation.client(1, ClientState.from_bytes(old, federation.session))
        refused("FEDFT-8815", lambda: restored.mask(request, DIGITS))

    def test_never_again_in_another_session_of_the_run(self) -> None:
        federation = Federation(4)
        federation.exchange_keys()
        federation.sum(dict.fromkeys(range(4), DIGITS), 2)
        federation.session = make_session(federation.keys, first_round=6, rounds=2)
        federation.clients = [federation.client(n) for n in range(4)]
        federation.exchange = KeyExchange(federation.session)
        federation.exchange_keys()

        with pytest.raises(FedftError, match="FEDFT-8815"):
            federation.sum(dict.fromkeys(range(4), DIGITS), 2)

    def test_rounds_and_sessions_that_are_not_its_own(self, federation: Federation) -> None:
        request = MaskedSum(federation.exchange, 7, PAYLOAD).request()
        client = federation.clients[1]

        refused("FEDFT-8809", lambda: client.mask(replace(request, round=8), DIGITS))
        refused("FEDFT-8809", lambda: client.mask(replace(request, session=bytes(32)), DIGITS))

    def test_vectors_that_do_not_fit(self, federation: Federation) -> None:
        request = MaskedSum(federation.exchange, 7, PAYLOAD).request()
        client = federation.clients[1]

        refused("FEDFT-8818", lambda: client.mask(request, DIGITS[:-1]))
        refused("FEDFT-8818", lambda: client.mask(request, DIGITS - 1))
        refused("FEDFT-8818", lambda: client.mask(request, DIGITS + 3))
        refused("FEDFT-8819", lambda: client.mask(replace(request, payload=Payload(0, 2, GRID)), DIGITS))
        client.mask(request, DIGITS)

    def test_the_journal_comes_before_the_vector(self, federation: Federation) -> None:
        class FullDisk(MemoryJournal):
            def append(self, step: Step, subject: bytes, content: bytes) -> None:
                raise OSError("no space left")

        client = federation.client(1, federation.clients[1].state)
        client._journal = FullDisk()
        with pytest.raises(OSError, match="no space"):
            client.mask(MaskedSum(federation.exchange, 7, PAYLOAD).request(), DIGITS)


class TestCohort:
    def test_overlapping_and_incomplete_lists(self, federation: Federation) -> None:
        _, request = masked(federation)
        client = federation.clients[2]

        rest = request.survivors
        for survivors, dropped in (
            (rest, (0, 1)),
            (rest, (2,)),
            (rest, ()),
            (rest, (-1, 0)),
            ((2, 3, 4, 5, 6), (0,)),
            ((2, 1, 3, 4, 5, 6), (0,)),
            ((1, 1, 2, 3, 4, 5, 6), (0,)),
            ((1, 2, 3, 4, 5, 6, 99), (0,)),
        ):
            changed = replace(request, survivors=survivors, dropped=dropped)
            refused("FEDFT-8811", partial(client.attest, changed))
            refused(
                "FEDFT-8811",
                partial(client.unmask, UnmaskRequest(request.session, 7, survivors, dropped, {})),
            )

    def test_fewer_survivors_than_the_threshold(self, federation: Federation) -> None:
        _, request = masked(federation)
        few = replace(request, survivors=(2, 3, 4, 5), dropped=(0, 1, 6))

        refused("FEDFT-8806", lambda: federation.clients[2].attest(few))
        refused(
            "FEDFT-8806",
            lambda: federation.clients[2].unmask(
                UnmaskRequest(few.session, 7, few.survivors, few.dropped, {})
            ),
        )

    def test_a_cohort_without_itself(self, federation: Federation) -> None:
        _, request = masked(federation)
        without = replace(request, survivors=(1, 3, 4, 5, 6), dropped=(0, 2))
        refused("FEDFT-8820", lambda: federation.clients[2].attest(without))

    def test_a_cohort_beyond_those_who_shared(self) -> None:
        federation = Federation(7)
        federation.exchange_keys(Dropouts(shares=[6]))
        server = MaskedSum(federation.exchange, 7, PAYLOAD)
        for number in range(1, 6):
            server.take_masked(number, federation.clients[number].mask(server.request(), DIGITS))
        request = server.close_masked()
        assert isinstance(request, CohortRequest)
        grown = replace(request, survivors=(*request.survivors, 6))
        refused("FEDFT-8812", lambda: federation.clients[2].attest(grown))

    def test_a_round_that_it_did_not_mask(self, federation: Federation) -> None:
        _, request = masked(federation, gone=(0, 1))
        whole = replace(request, survivors=tuple(range(1, 7)), dropped=(0,))
        refused("FEDFT-8810", lambda: federation.clients[1].attest(whole))

    def test_a_second_cohort(self, federation: Federation) -> None:
        _, request = masked(federation)
        client = federation.clients[2]
        first = client.attest(request)
        other = replace(request, survivors=(2, 3, 4, 5, 6), dropped=(0, 1))

        assert client.attest(request) == first
        refused("FEDFT-8816", lambda: client.attest(other))

    def test_the_whole_cohort_after_signing_a_smaller_one(self, federation: Federation) -> None:
        server = MaskedSum(federation.exchange, 7, PAYLOAD)
        everyone = {n: federation.clients[n].mask(server.request(), DIGITS) for n in range(COUNT)}
        attestations = {n: message.attestation for n, message in everyone.items()}
        whole = UnmaskRequest(federation.session.digest, 7, tuple(range(COUNT)), (), attestations)
        smaller = CohortRequest(federation.session.digest, 7, tuple(range(1, COUNT)), (0,))

        federation.clients[2].attest(smaller)
        refused("FEDFT-8816", lambda: federation.clients[2].unmask(whole))
        federation.clients[3].unmask(whole)
        refused("FEDFT-8817", lambda: federation.clients[3].attest(smaller))


class TestUnmasking:
    def test_a_second_time(self, federation: Federation) -> None:
        _, request = attested(federation)
        client = federation.clients[2]
        old = client.state.to_bytes(federation.session)
        client.unmask(request)

        refused("FEDFT-8817", lambda: client.unmask(request))
        restored = federation.client(2, ClientState.from_bytes(old, federation.session))
        refused("FEDFT-8817", lambda: restored.unmask(request))

    def test_a_cohort_that_it_has_not_signed(self, federation: Federation) -> None:
        server, request = masked(federation)
        for number in (1, 3, 4, 5, 6):
            server.take_attestation(number, federation.clients[number].attest(request))
        refused("FEDFT-8816", lambda: federation.clients[2].unmask(server.close_attestations()))

    def test_too_few_signatures(self, federation: Federation) -> None:
        _, request = attested(federation)
        few = {n: request.attestations[n] for n in (2, 3, 4, 5)}
        refused("FEDFT-8807", lambda: federation.clients[2].unmask(replace(request, attestations=few)))

    def test_signatures_of_drop_outs(self, federation: Federation) -> None:
        _, request = attested(federation)
        moved = {0 if n == 1 else n: s for n, s in request.attestations.items()}
        refused("FEDFT-8807", lambda: federation.clients[2].unmask(replace(request, attestations=moved)))

    def test_forged_signatures(self, federation: Federation) -> None:
        _, request = attested(federation)
        forged = {**request.attestations, 1: bytes(64)}
        refused("FEDFT-8808", lambda: federation.clients[2].unmask(replace(request, attestations=forged)))

    def test_a_whole_cohort_that_not_all_have_signed(self, federation: Federation) -> None:
        server = MaskedSum(federation.exchange, 7, PAYLOAD)
        masked_inputs = {n: federation.clients[n].mask(server.request(), DIGITS) for n in range(1, COUNT)}
        attestations = {n: message.attestation for n, message in masked_inputs.items()}
        whole = UnmaskRequest(federation.session.digest, 7, tuple(range(COUNT)), (), attestations)
        refused("FEDFT-8807", lambda: federation.clients[2].unmask(whole))

    def test_what_a_client_holds_is_gone_afterwards(self, federation: Federation) -> None:
        _, request = attested(federation)
        client = federation.clients[2]
        reply = client.unmask(request)

        stored = client.state.to_bytes(federation.session).decode()
        assert all(hex(share) not in stored for share in reply.shares.values())
        assert set(client.state.rounds[0].seed + client.state.rounds[0].key_seed) == {0}
        client.receive(federation.exchange.delivery(2))
        assert client.state.to_bytes(federation.session).decode() == stored


class TestServer:
    def test_answers_twice_late_and_of_strangers(self, federation: Federation) -> None:
        server = MaskedSum(federation.exchange, 7, PAYLOAD)
        messages = {n: federation.clients[n].mask(server.request(), DIGITS) for n in range(COUNT)}
        for number in range(1, COUNT):
            server.take_masked(number, messages[number])
        before = server.words.copy()

        refused("FEDFT-8821", lambda: server.take_masked(1, messages[1]))
        refused("FEDFT-8812", lambda: server.take_masked(99, messages[0]))
        refused("FEDFT-8808", lambda: server.take_masked(0, messages[1]))
        refused("FEDFT-8809", lambda: server.take_masked(0, replace(messages[0], round=8)))
        refused("FEDFT-8809", lambda: server.take_masked(0, replace(messages[0], session=bytes(32))))
        refused(
            "FEDFT-8818", lambda: server.take_masked(0, replace(messages[0], words=messages[0].words[:-1]))
        )
        refused("FEDFT-8810", server.close_attestations)
        refused("FEDFT-8810", server.finish)
        server.close_masked()
        refused("FEDFT-8810", lambda: server.take_masked(0, messages[0]))
        refused("FEDFT-8810", server.close_masked)
        assert np.array_equal(server.words, before)

    def test_signatures_and_shares(self, federation: Federation) -> None:
        server, request = masked(federation)
        signature = federation.clients[1].attest(request)
        refused("FEDFT-8808", lambda: server.take_attestation(2, signature))
        refused("FEDFT-8812", lambda: server.take_attestation(0, signature))
        for number in server.survivors:
            server.take_attestation(number, federation.clients[number].attest(request))
        refused("FEDFT-8821", lambda: server.take_attestation(1, signature))
        unmask = server.close_attestations()
        refused("FEDFT-8810", lambda: server.take_attestation(1, signature))
        reply = federation.clients[1].unmask(unmask)
        refused("FEDFT-8811", lambda: server.take_shares(1, replace(reply, shares={99: 5})))
        refused("FEDFT-8812", lambda: server.take_shares(0, reply))
        server.take_shares(1, reply)
        refused("FEDFT-8821", lambda: server.take_shares(1, reply))

    def test_one_wrong_share_among_enough_does_no_harm(self, federation: Federation) -> None:
        server, request = attested(federation)
        for number in server.survivors:
            reply = federation.clients[number].unmask(request)
            if number == 2:
                reply = replace(reply, shares={dealer: share ^ 1 for dealer, share in reply.shares.items()})
            server.take_shares(number, reply)

        assert server.finish().digits.tolist() == [0] * 20

    def test_too_many_wrong_shares_end_the_round(self, federation: Federation) -> None:
        server, request = attested(federation)
        for number in server.survivors:
            reply = federation.clients[number].unmask(request)
            if number in (2, 3):
                reply = replace(reply, shares={dealer: share ^ 1 for dealer, share in reply.shares.items()})
            server.take_shares(number, reply)

        refused("FEDFT-8823", server.finish)

    def test_a_vector_masked_with_something_else(self, federation: Federation) -> None:
        server = MaskedSum(federation.exchange, 7, Payload(2000, 2, GRID))
        zeros = np.zeros(2000, dtype=np.int64)
        for number in range(COUNT):
            message = federation.clients[number].mask(server.request(), zeros)
            if number == 3:
                message = replace(message, words=bytes(len(message.words)))
            server.take_masked(number, message)
        request = server.close_masked()
        assert isinstance(request, UnmaskRequest)
        for number in range(COUNT):
            server.take_shares(number, federation.clients[number].unmask(request))

        refused("FEDFT-8824", server.finish)

    def test_the_key_exchange(self) -> None:
        federation = Federation(4)
        exchange = federation.exchange
        messages = [client.advertise() for client in federation.clients]
        low_order = replace(messages[0], sealing_key=bytes(32))
        low_order = replace(low_order, signature=federation.keys[0].sign(low_order.statement(0)))

        refused("FEDFT-8808", lambda: exchange.take_advertisement(0, low_order))
        refused("FEDFT-8808", lambda: exchange.take_advertisement(0, messages[1]))
        refused("FEDFT-8810", exchange.close_shares)
        for number in range(3):
            exchange.take_advertisement(number, messages[number])
        refused("FEDFT-8821", lambda: exchange.take_advertisement(0, messages[0]))
        roster = exchange.close_advertisements()
        refused("FEDFT-8810", lambda: exchange.take_advertisement(3, messages[3]))
        shares = federation.clients[0].share(roster)
        refused("FEDFT-8812", lambda: exchange.take_shares(3, shares))
        refused("FEDFT-8811", lambda: exchange.take_shares(1, shares))
        cut = {receiver: sealed[:-1] for receiver, sealed in shares.sealed.items()}
        refused("FEDFT-8811", lambda: exchange.take_shares(0, replace(shares, sealed=cut)))
        refused("FEDFT-8809", lambda: exchange.take_shares(0, replace(shares, session=bytes(32))))
        exchange.take_shares(0, shares)
        refused("FEDFT-8821", lambda: exchange.take_shares(0, shares))
        refused("FEDFT-8822", exchange.close_shares)
        refused("FEDFT-8810", lambda: MaskedSum(exchange, 7, PAYLOAD))


def test_damaged_states(federation: Federation) -> None:
    session = federation.session
    server = masked(federation)[0]
    other = make_session(sorted_keys(4))
    client = federation.clients[0].state.to_bytes(session)

    for data in (b"", b"{}", b"[]", b"null", client[:-5], client.replace(b"client 1", b"client 2")):
        refused("FEDFT-8825", partial(ClientState.from_bytes, data, session))
        refused("FEDFT-8825", partial(KeyExchange.from_bytes, data, session))
        refused("FEDFT-8825", partial(masked_sum_from_bytes, data, federation.exchange))
    refused("FEDFT-8825", lambda: ClientState.from_bytes(client, other))
    refused("FEDFT-8825", lambda: KeyExchange.from_bytes(federation.exchange.to_bytes(), other))
    whole = masked_sum_to_bytes(server)
    refused(
        "FEDFT-8825",
        lambda: masked_sum_from_bytes(whole.replace(b'"words": "', b'"words": "AAAA'), federation.exchange),
    )
