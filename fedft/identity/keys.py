"""Keys and what is derived from them: fingerprints, node ids, the files that they lie in."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedft import clock
from fedft.errors import Code, FedftError

TlsKey = ec.EllipticCurvePrivateKey


def new_tls_key() -> TlsKey:
    """Make a P-256 key; gRPC's TLS library accepts no Ed25519 certificates."""
    return ec.generate_private_key(ec.SECP256R1())


def fingerprint(certificate: x509.Certificate) -> str:
    """Name the key of a certificate: SHA-256 (hex) over its SubjectPublicKeyInfo.

    A renewed certificate of the same key has the same fingerprint.
    """
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    spki = certificate.public_key().public_bytes(serialization.Encoding.DER, form)
    return hashlib.sha256(spki).hexdigest()


def node_id(key: str) -> int:
    """Give the node id of a key's fingerprint: its first 63 bits, the same in every session."""
    return int(key[:16], 16) >> 1


def private_pem(key: TlsKey | Ed25519PrivateKey) -> bytes:
    """Serialise a private key, unencrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Serialise a public signing key."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Serialise a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read; it must not exist yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_file(path: Path) -> bytes:
    """Read a key or certificate file; FEDFT-7053 when it is not there."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FedftError(
            Code.KEY_FILE_INVALID,
            f"cannot read {path}: {error.strerror}",
            hint="a certificate comes from the server's operator; keys are made by `fedft client join`",
        ) from None


def load_tls_key(path: Path) -> TlsKey:
    """Read a TLS key; FEDFT-7053 when it is missing or none."""
    key = _private(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FedftError(Code.KEY_FILE_INVALID, f"{path} is no elliptic-curve key")
    return key


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 key; FEDFT-7053 when it is missing or none."""
    key = _private(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise FedftError(Code.KEY_FILE_INVALID, f"{path} is no Ed25519 key")
    return key


def parse_public_signing_key(data: bytes) -> Ed25519PublicKey:
    """Read a public signing key from PEM; FEDFT-7056 when it is none."""
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FedftError(Code.JOIN_BUNDLE_INVALID, f"not a public key: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise FedftError(Code.JOIN_BUNDLE_INVALID, "the signing key is not Ed25519")
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate; FEDFT-7053 when it is missing or none."""
    try:
        return x509.load_pem_x509_certificate(read_file(path))
    except ValueError as error:
        raise FedftError(Code.KEY_FILE_INVALID, f"{path} is no certificate: {error}") from None


def require_in_force(path: Path, *, hint: str) -> datetime:
    """Return when the certificate at ``path`` expires; FEDFT-7054 when it is not in force now."""
    certificate = load_certificate(path)
    now, begin, end = clock.now(), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise FedftError(
            Code.CERTIFICATE_EXPIRED,
            f"the certificate is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, now is "
            f"{now:%Y-%m-%d %H:%M}",
            hint=f"{hint}; or correct this clock",
        )
    return end


def _private(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(read_file(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FedftError(Code.KEY_FILE_INVALID, f"{path} is no private key: {error}") from None
