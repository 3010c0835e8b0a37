"""The outermost layer: a payload's bytes with their hash and, in a deployment, a signature."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from fedft.errors import Code, FedftError
from fedft.wire.bounds import check_fields
from fedft.wire.v1 import envelope_pb2 as pb

WIRE_VERSION = 1


def key_id(key: Ed25519PublicKey) -> bytes:
    """Name a public key: the first 16 bytes of SHA-256 over its raw form."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:16]


def seal(payload: bytes, key: Ed25519PrivateKey | None = None) -> bytes:
    """Wrap a payload with its SHA-256 and, given a key, an Ed25519 signature over the payload's bytes."""
    envelope = pb.Envelope(
        wire_version=WIRE_VERSION, payload=payload, payload_sha256=hashlib.sha256(payload).digest()
    )
    if key is not None:
        envelope.signature.algorithm = pb.SIGNATURE_ALGORITHM_ED25519
        envelope.signature.key_id = key_id(key.public_key())
        envelope.signature.value = key.sign(payload)
    return bytes(envelope.SerializeToString(deterministic=True))


def open_envelope(data: bytes, *, max_bytes: int, trusted_key: Ed25519PublicKey | None = None) -> bytes:
    """Give the payload after every check; in this order: size, form, version, hash, signature.

    Args:
        data: from anyone.
        max_bytes: cap on ``data``, checked before anything else.
        trusted_key: when given, the payload must be signed by it; otherwise a signature is not looked at.

    Raises:
        FedftError: FEDFT-4001 size, 4002 and 4009 form, 4003 version, 4004 hash, 4005 and 4006 signature.

    """
    if len(data) > max_bytes:
        raise FedftError(
            Code.ENVELOPE_TOO_LARGE, f"an envelope of {len(data)} bytes, at most {max_bytes} are allowed"
        )
    check_fields(data, pb.Envelope)
    envelope = pb.Envelope()
    try:
        envelope.ParseFromString(data)
    except DecodeError as error:
        raise FedftError(Code.MESSAGE_MALFORMED, f"not an envelope: {error}") from None
    if envelope.wire_version != WIRE_VERSION:
        raise FedftError(
            Code.WIRE_VERSION_MISMATCH,
            f"wire version {envelope.wire_version}, this build speaks {WIRE_VERSION}",
            hint="run the same major version of fedft on both ends",
        )
    payload = bytes(envelope.payload)
    if hashlib.sha256(payload).digest() != envelope.payload_sha256:
        raise FedftError(
            Code.PAYLOAD_HASH_MISMATCH, "the payload does not have the hash that its envelope states"
        )
    if trusted_key is not None:
        _verify(envelope, payload, trusted_key)
    return payload


def _verify(envelope: pb.Envelope, payload: bytes, trusted_key: Ed25519PublicKey) -> None:
    if not envelope.HasField("signature"):
        raise FedftError(
            Code.SIGNATURE_MISSING, "the envelope is not signed, and this connection requires it"
        )
    signature = envelope.signature
    if signature.algorithm != pb.SIGNATURE_ALGORITHM_ED25519:
        raise FedftError(Code.SIGNATURE_INVALID, f"signature algorithm {signature.algorithm} is unknown")
    if signature.key_id != key_id(trusted_key):
        raise FedftError(
            Code.SIGNATURE_INVALID, f"signed by key {signature.key_id[:16].hex()}, not the trusted one"
        )
    try:
        trusted_key.verify(signature.value, payload)
    except InvalidSignature:
        raise FedftError(Code.SIGNATURE_INVALID, "the signature does not verify") from None
