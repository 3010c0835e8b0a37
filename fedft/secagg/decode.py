"""From bytes of anyone to messages: sizes, counts and numbers are bounded before anything is built of them.

What a message says is checked where it is used; here, that it is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from fedft.config.rules import MAX_MEMBERS
from fedft.errors import Code, FedftError
from fedft.secagg.identities import SIGNATURE_BYTES
from fedft.secagg.keys import KEY_BYTES
from fedft.secagg.messages import (
    Advertisement,
    Attestation,
    CohortRequest,
    Delivery,
    MaskedInput,
    MaskRequest,
    Payload,
    Roster,
    RoundKeys,
    RoundRequest,
    Shares,
    UnmaskReply,
    UnmaskRequest,
)
from fedft.secagg.sealing import TAG_BYTES
from fedft.secagg.session import DIGEST_BYTES, MAX_ROUNDS, Session
from fedft.secagg.shamir import PRIME, SHARE_BYTES
from fedft.wire.bounds import check_fields
from fedft.wire.v1 import secagg_pb2 as pb

MAX_BYTES = 1 << 20
"""Above any honest message but a masked vector: 256 members, 32 rounds."""

_AROUND_WORDS = 1 << 10
_MAX_SEALED = 2 * MAX_ROUNDS * SHARE_BYTES + TAG_BYTES
_Proto = TypeVar("_Proto", bound=Message)


def decode_session(data: bytes) -> Session:
    """Parse a session; raises FEDFT-4002, 4007 and 4009 on form, FEDFT-8801 and 8802 on its terms."""
    message = _parse(data, pb.SecaggSession())
    _expect(len(message.members) <= MAX_MEMBERS, "members", len(message.members))
    return Session(
        message.run_id,
        message.first_round,
        message.rounds,
        message.frame_digest,
        tuple(message.members),
        message.threshold,
    )


def decode_advertisement(data: bytes) -> Advertisement:
    """Parse an advertisement; raises FEDFT-4002, 4007 and 4009."""
    return _advertisement(_parse(data, pb.SecaggAdvertisement()))


def decode_roster(data: bytes) -> Roster:
    """Parse a roster; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggRoster())
    members = _numbers(message.members, "members")
    _expect(len(members) == len(message.advertisements), "advertisements", len(message.advertisements))
    advertisements = map(_advertisement, message.advertisements)
    return Roster(_session(message.session), dict(zip(members, advertisements, strict=True)))


def decode_shares(data: bytes) -> Shares:
    """Parse sealed shares; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggShares())
    receivers = _numbers(message.receivers, "receivers")
    return Shares(_session(message.session), _cut(receivers, message.sealed, "sealed"))


def decode_delivery(data: bytes) -> Delivery:
    """Parse a delivery; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggDelivery())
    dealers = _numbers(message.dealers, "dealers")
    return Delivery(
        _session(message.session),
        _numbers(message.cohort, "cohort"),
        _cut(dealers, message.sealed, "sealed"),
    )


def decode_mask_request(data: bytes) -> MaskRequest:
    """Parse a request to mask; raises FEDFT-4002, 4007 and 4009."""
    return _mask_request(_parse(data, pb.SecaggMaskRequest()))


def decode_round_request(data: bytes) -> RoundRequest:
    """Parse what a round of training is told; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggRound())
    _expect(len(message.sizes_f32le) % 4 == 0, "sizes_f32le", len(message.sizes_f32le))
    sizes = np.frombuffer(message.sizes_f32le, dtype="<f4")
    _expect(bool(np.all((sizes > 0) & np.isfinite(sizes))), "sizes_f32le", sizes[:5])
    return RoundRequest(_mask_request(message.request), tuple(sizes.tolist()))


def decode_masked_input(data: bytes, words_bytes: int) -> MaskedInput:
    """Parse a masked vector of ``words_bytes`` bytes; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggMaskedInput(), words_bytes + _AROUND_WORDS)
    _expect(len(message.words) == words_bytes, "words", len(message.words))
    return MaskedInput(
        _session(message.session), message.round, message.words, _signature(message.attestation)
    )


def decode_cohort_request(data: bytes) -> CohortRequest:
    """Parse a request to sign a cohort; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggCohortRequest())
    survivors, dropped = _numbers(message.survivors, "survivors"), _numbers(message.dropped, "dropped")
    return CohortRequest(_session(message.session), message.round, survivors, dropped)


def decode_attestation(data: bytes) -> Attestation:
    """Parse a signature on a cohort; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggAttestation())
    return Attestation(_session(message.session), message.round, _signature(message.signature))


def decode_unmask_request(data: bytes) -> UnmaskRequest:
    """Parse a request to unmask; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggUnmaskRequest())
    attesters = _numbers(message.attesters, "attesters")
    return UnmaskRequest(
        _session(message.session),
        message.round,
        _numbers(message.survivors, "survivors"),
        _numbers(message.dropped, "dropped"),
        _cut(attesters, message.attestations, "attestations", SIGNATURE_BYTES),
    )


def decode_unmask_reply(data: bytes) -> UnmaskReply:
    """Parse shares; raises FEDFT-4002, 4007 and 4009."""
    message = _parse(data, pb.SecaggUnmaskReply())
    dealers = _numbers(message.dealers, "dealers")
    pieces = _cut(dealers, message.shares, "shares", SHARE_BYTES)
    shares = {dealer: int.from_bytes(piece, "little") for dealer, piece in pieces.items()}
    for share in shares.values():
        _expect(share < PRIME, "shares", share)
    return UnmaskReply(_session(message.session), message.round, shares)


def _advertisement(message: pb.SecaggAdvertisement) -> Advertisement:
    size = len(message.round_keys)
    _expect(size % (2 * KEY_BYTES) == 0 and size <= 2 * KEY_BYTES * MAX_ROUNDS, "round_keys", size)
    _expect(len(message.sealing_key) == KEY_BYTES, "sealing_key", len(message.sealing_key))
    pairs = [message.round_keys[at : at + 2 * KEY_BYTES] for at in range(0, size, 2 * KEY_BYTES)]
    rounds = tuple(RoundKeys(pair[:KEY_BYTES], pair[KEY_BYTES:]) for pair in pairs)
    return Advertisement(
        _session(message.session), message.sealing_key, rounds, _signature(message.signature)
    )


def _mask_request(message: pb.SecaggMaskRequest) -> MaskRequest:
    _expect(len(message.grid) == DIGEST_BYTES, "grid", len(message.grid))
    payload = Payload(message.elements, message.largest, message.grid)
    return MaskRequest(_session(message.session), message.round, payload)


def _parse(data: bytes, message: _Proto, max_bytes: int = MAX_BYTES) -> _Proto:
    _expect(len(data) <= max_bytes, "size", len(data))
    check_fields(data, message)
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise FedftError(Code.MESSAGE_MALFORMED, f"not a {message.DESCRIPTOR.name}: {error}") from None
    return message


def _session(digest: bytes) -> bytes:
    _expect(len(digest) == DIGEST_BYTES, "session", len(digest))
    return digest


def _signature(signature: bytes) -> bytes:
    _expect(len(signature) == SIGNATURE_BYTES, "signature", len(signature))
    return signature


def _numbers(numbers: Sequence[int], field: str) -> tuple[int, ...]:
    _expect(len(numbers) <= MAX_MEMBERS, field, len(numbers))
    ascending = all(a < b for a, b in pairwise(numbers))
    _expect(ascending and (not numbers or numbers[-1] < MAX_MEMBERS), field, list(numbers)[:5])
    return tuple(numbers)


def _cut(numbers: tuple[int, ...], data: bytes, field: str, size: int = 0) -> dict[int, bytes]:
    """Cut bytes into one piece of equal size for each number: of ``size``, or of what a message needs."""
    size = size or (len(data) // len(numbers) if numbers else 0)
    _expect(len(data) == size * len(numbers) and size <= _MAX_SEALED, field, len(data))
    return {number: data[place * size : (place + 1) * size] for place, number in enumerate(numbers)}


def _expect(good: bool, field: str, value: object) -> None:
    if not good:
        raise FedftError(Code.FIELD_OUT_OF_BOUNDS, f"field {field} is not allowed to be {value!r}")
