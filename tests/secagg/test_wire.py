"""The bytes of every message: they come back as they were, and nothing else gets past the decoders."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.config.rules import MAX_MEMBERS
from fedft.errors import FedftError
from fedft.secagg import decode as wire
from fedft.secagg.encode import encode
from fedft.secagg.masked_sum import MaskedSum
from fedft.secagg.messages import (
    Attestation,
    CohortRequest,
    MaskRequest,
    Payload,
    Roster,
    RoundRequest,
    Shares,
    UnmaskReply,
    UnmaskRequest,
)
from fedft.secagg.session import MAX_ROUNDS
from fedft.secagg.shamir import PRIME
from fedft.wire.v1 import secagg_pb2 as pb
from tests.secagg.federation import GRID, Dropouts, Federation, random_vectors

DIGEST = b"\x11" * 32


def every_message() -> dict[str, tuple[object, Callable[[bytes], object]]]:
    """One honest message of each kind with its decoder."""
    federation = Federation(5, threshold=4)
    federation.exchange_keys()
    exchange = federation.exchange
    roster = exchange.roster
    assert roster is not None
    server = MaskedSum(exchange, 7, Payload(20, 2, GRID))
    words = server.packing.nbytes
    federation.sum(random_vectors(5, 20, 2, 0), 2, dropouts=Dropouts(masked=[1]))
    cohort = CohortRequest(DIGEST, 7, (0, 2, 3), (1, 4))
    return {
        "session": (federation.session, wire.decode_session),
        "advertisement": (roster.advertisements[0], wire.decode_advertisement),
        "roster": (roster, wire.decode_roster),
        "shares": (exchange._shares[0], wire.decode_shares),
        "delivery": (exchange.delivery(0), wire.decode_delivery),
        "mask_request": (server.request(), wire.decode_mask_request),
        "round_request": (RoundRequest(server.request(), (0.5, 2.0**-20)), wire.decode_round_request),
        "masked_input": (
            federation.traffic.masked[0],
            partial(wire.decode_masked_input, words_bytes=words),
        ),
        "cohort_request": (cohort, wire.decode_cohort_request),
        "attestation": (Attestation(DIGEST, 7, b"\x01" * 64), wire.decode_attestation),
        "unmask_request": (
            UnmaskRequest(DIGEST, 7, (0, 2, 3), (1, 4), {0: b"\x01" * 64, 3: b"\x02" * 64}),
            wire.decode_unmask_request,
        ),
        "unmask_reply": (federation.traffic.replies[0], wire.decode_unmask_reply),
    }


MESSAGES = every_message()
REFUSALS = {"FEDFT-4002", "FEDFT-4007", "FEDFT-4009", "FEDFT-8801", "FEDFT-8802"}


def decoded_or_refused(decode: Callable[[bytes], object], data: bytes) -> object:
    """Decode, or give None where the decoder refuses with one of its own codes."""
    try:
        return decode(data)
    except FedftError as error:
        if error.code not in REFUSALS:
            raise
        return None


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_come_back_as_the_message(name: str) -> None:
    message, decode = MESSAGES[name]

    assert decode(encode(message)) == message
    assert encode(decode(encode(message))) == encode(message)


def test_every_message_of_the_schema_is_covered() -> None:
    assert len(MESSAGES) == len(pb.DESCRIPTOR.message_types_by_name)


@pytest.mark.parametrize("name", MESSAGES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_refused_or_decode_to_a_bounded_message(name: str, data: st.DataObject) -> None:
    message, decode = MESSAGES[name]
    changed = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        kind = data.draw(st.sampled_from(["set", "insert", "cut", "repeat"]))
        if kind == "set" and at < len(changed):
            changed[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            changed[at:at] = data.draw(st.binary(max_size=12))
        elif kind == "cut":
            del changed[at : at + data.draw(st.integers(1, 40))]
        else:
            changed += changed[at:]

    decoded = decoded_or_refused(decode, bytes(changed))
    assert decoded is None or decode(encode(decoded)) == decoded


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300), name=st.sampled_from(sorted(MESSAGES)))
def test_any_bytes(data: bytes, name: str) -> None:
    decoded_or_refused(MESSAGES[name][1], data)


@pytest.mark.parametrize(
    ("message", "decode"),
    [
        (pb.SecaggShares(session=DIGEST, receivers=[1, 0], sealed=bytes(4)), wire.decode_shares),
        (pb.SecaggShares(session=DIGEST, receivers=[1, 1], sealed=bytes(4)), wire.decode_shares),
        (pb.SecaggShares(session=DIGEST, receivers=[MAX_MEMBERS], sealed=bytes(4)), wire.decode_shares),
        (pb.SecaggShares(session=DIGEST, receivers=[0, 1], sealed=bytes(5)), wire.decode_shares),
        (pb.SecaggShares(session=DIGEST, receivers=[0], sealed=bytes(1 << 14)), wire.decode_shares),
        (pb.SecaggShares(session=DIGEST, receivers=range(MAX_MEMBERS + 1)), wire.decode_shares),
        (pb.SecaggShares(session=b"x", receivers=[0], sealed=bytes(5)), wire.decode_shares),
        (pb.SecaggShares(session=DIGEST, sealed=bytes(5)), wire.decode_shares),
        (pb.SecaggRoster(session=DIGEST, members=[0]), wire.decode_roster),
        (pb.SecaggMaskRequest(session=DIGEST, grid=b"short"), wire.decode_mask_request),
        (pb.SecaggAttestation(session=DIGEST, signature=bytes(63)), wire.decode_attestation),
        (
            pb.SecaggUnmaskReply(session=DIGEST, dealers=[0], shares=PRIME.to_bytes(17, "little")),
            wire.decode_unmask_reply,
        ),
        (
            pb.SecaggAdvertisement(
                session=DIGEST,
                sealing_key=bytes(32),
                round_keys=bytes(64 * (MAX_ROUNDS + 1)),
                signature=bytes(64),
            ),
            wire.decode_advertisement,
        ),
        (
            pb.SecaggAdvertisement(
                session=DIGEST, sealing_key=bytes(31), round_keys=bytes(64), signature=bytes(64)
            ),
            wire.decode_advertisement,
        ),
        (
            pb.SecaggMaskedInput(session=DIGEST, words=bytes(9), attestation=bytes(64)),
            partial(wire.decode_masked_input, words_bytes=8),
        ),
        (pb.SecaggMaskedInput(session=DIGEST, words=bytes(1 << 21)), wire.decode_attestation),
    ],
)
def test_counts_sizes_and_numbers_are_bounded(message: object, decode: Callable[[bytes], object]) -> None:
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode(message.SerializeToString())  # type: ignore[attr-defined]


def test_what_is_no_message() -> None:
    with pytest.raises(TypeError, match="no message"):
        encode("text")
    with pytest.raises(ValueError, match="size"):
        encode(Shares(DIGEST, {0: b"1", 1: b"22"}))


def test_the_state_of_a_client_is_json_without_arrays_of_the_vector() -> None:
    federation = Federation(4)
    federation.exchange_keys()
    federation.clients[0].mask(
        MaskedSum(federation.exchange, 7, Payload(1000, 2, GRID)).request(), np.zeros(1000, dtype=np.int64)
    )

    facts = json.loads(federation.clients[0].state.to_bytes(federation.session))
    assert set(facts) == {"format", "session", "sealing_key", "rounds", "roster", "held", "cohort"}


def test_rosters_and_requests_compare_by_content() -> None:
    request = MaskRequest(DIGEST, 3, Payload(5, 2, GRID))

    assert wire.decode_mask_request(encode(request)) == request
    assert Roster(DIGEST, {}).members == ()
    assert UnmaskReply(DIGEST, 1, {}) == wire.decode_unmask_reply(encode(UnmaskReply(DIGEST, 1, {})))
