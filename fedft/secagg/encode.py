"""From messages to bytes: proto/fedft/v1/secagg.proto."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

import numpy as np
from google.protobuf.message import Message

from fedft.secagg.messages import (
    Advertisement,
    Attestation,
    CohortRequest,
    Delivery,
    MaskedInput,
    MaskRequest,
    Roster,
    RoundRequest,
    Shares,
    UnmaskReply,
    UnmaskRequest,
)
from fedft.secagg.session import Session
from fedft.secagg.shamir import SHARE_BYTES
from fedft.wire.v1 import secagg_pb2 as pb


def encode(message: object) -> bytes:
    """Serialise a session or one of the protocol's messages; the same bytes each time."""
    return bytes(_proto(message).SerializeToString(deterministic=True))


@singledispatch
def _proto(message: object) -> Message:
    raise TypeError(f"{type(message).__name__} is no message of secure aggregation")


@_proto.register
def _(session: Session) -> Message:
    return pb.SecaggSession(
        run_id=session.run_id,
        first_round=session.first_round,
        rounds=session.rounds,
        frame_digest=session.frame_digest,
        members=session.members,
        threshold=session.threshold,
    )


@_proto.register
def _advertisement(advertisement: Advertisement) -> pb.SecaggAdvertisement:
    return pb.SecaggAdvertisement(
        session=advertisement.session,
        sealing_key=advertisement.sealing_key,
        round_keys=b"".join(keys.mask_key + keys.commitment for keys in advertisement.rounds),
        signature=advertisement.signature,
    )


@_proto.register
def _(roster: Roster) -> Message:
    advertisements = [_advertisement(roster.advertisements[member]) for member in roster.members]
    return pb.SecaggRoster(session=roster.session, members=roster.members, advertisements=advertisements)


@_proto.register
def _(shares: Shares) -> Message:
    return pb.SecaggShares(
        session=shares.session, receivers=sorted(shares.sealed), sealed=_joined(shares.sealed)
    )


@_proto.register
def _(delivery: Delivery) -> Message:
    return pb.SecaggDelivery(
        session=delivery.session,
        cohort=delivery.cohort,
        dealers=sorted(delivery.sealed),
        sealed=_joined(delivery.sealed),
    )


@_proto.register
def _mask_request(request: MaskRequest) -> pb.SecaggMaskRequest:
    payload = request.payload
    return pb.SecaggMaskRequest(
        session=request.session,
        round=request.round,
        elements=payload.elements,
        largest=payload.largest,
        grid=payload.grid,
    )


@_proto.register
def _(request: RoundRequest) -> Message:
    sizes = np.array(request.sizes, dtype="<f4").tobytes()
    return pb.SecaggRound(request=_mask_request(request.mask), sizes_f32le=sizes)


@_proto.register
def _(masked: MaskedInput) -> Message:
    return pb.SecaggMaskedInput(
        session=masked.session, round=masked.round, words=masked.words, attestation=masked.attestation
    )


@_proto.register
def _(request: CohortRequest) -> Message:
    return pb.SecaggCohortRequest(
        session=request.session, round=request.round, survivors=request.survivors, dropped=request.dropped
    )


@_proto.register
def _(attestation: Attestation) -> Message:
    return pb.SecaggAttestation(
        session=attestation.session, round=attestation.round, signature=attestation.signature
    )


@_proto.register
def _(request: UnmaskRequest) -> Message:
    return pb.SecaggUnmaskRequest(
        session=request.session,
        round=request.round,
        survivors=request.survivors,
        dropped=request.dropped,
        attesters=sorted(request.attestations),
        attestations=_joined(request.attestations),
    )


@_proto.register
def _(reply: UnmaskReply) -> Message:
    shares = {dealer: share.to_bytes(SHARE_BYTES, "little") for dealer, share in reply.shares.items()}
    return pb.SecaggUnmaskReply(
        session=reply.session, round=reply.round, dealers=sorted(shares), shares=_joined(shares)
    )


def _joined(pieces: Mapping[int, bytes]) -> bytes:
    if len({len(piece) for piece in pieces.values()}) > 1:
        raise ValueError("pieces of one message differ in size")
    return b"".join(pieces[number] for number in sorted(pieces))
