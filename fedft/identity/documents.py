"""The files that a site and an operator exchange before a site is enrolled. None of them is secret."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from fedft.errors import Code, FedftError
from fedft.identity.keys import TlsKey, parse_public_signing_key, public_pem
from fedft.identity.names import checked_member_name

_VERSION = 1
_BUNDLE, _REQUEST = "fedft-server-bundle", "fedft-enrolment-request"
_LARGEST = 64 * 1024


@dataclass(frozen=True)
class ServerBundle:
    """What a site needs to know of a server: addresses, authority and signing key (PEM)."""

    link_address: str
    admin_address: str
    authority: str
    signing_key: str

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps({"kind": _BUNDLE, "version": _VERSION, **vars(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ServerBundle:
        """Read the file's text; FEDFT-7056 when it is none."""
        found = _document(text, _BUNDLE)
        return cls(*(_text(found, name) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class EnrolmentRequest:
    """A name and two public keys; the holder has proved that it has the private ones."""

    name: str
    tls_request: x509.CertificateSigningRequest
    signing_key: Ed25519PublicKey


def make_request(name: str, tls_key: TlsKey, signing_key: Ed25519PrivateKey) -> str:
    """Return the text of a request that proves possession of both keys."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(tls_key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    values = {
        "kind": _REQUEST,
        "version": _VERSION,
        "name": name,
        "tls_request": pem,
        "signing_key": public_pem(signing_key.public_key()).decode(),
        "proof": signing_key.sign(_proven(name, pem)).hex(),
    }
    return json.dumps(values, indent=1) + "\n"


def read_request(text: str) -> EnrolmentRequest:
    """Read and verify a request; FEDFT-7056 when a part is missing or a proof fails."""
    found = _document(text, _REQUEST)
    name, pem = _text(found, "name"), _text(found, "tls_request")
    key = parse_public_signing_key(_text(found, "signing_key").encode())
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        key.verify(bytes.fromhex(_text(found, "proof")), _proven(name, pem))
    except (ValueError, InvalidSignature) as error:
        raise FedftError(Code.JOIN_BUNDLE_INVALID, f"the enrolment request is not sound: {error}") from None
    if not isinstance(csr.public_key(), ec.EllipticCurvePublicKey) or not csr.is_signature_valid:
        raise FedftError(
            Code.JOIN_BUNDLE_INVALID, "the enrolment request is not signed by the key that it names"
        )
    return EnrolmentRequest(checked_member_name(name), csr, key)


def _proven(name: str, pem: str) -> bytes:
    return f"{_REQUEST}\0{name}\0{pem}".encode()


def _document(text: str, kind: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if len(text) <= _LARGEST else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("kind") != kind or found.get("version") != _VERSION:
        raise FedftError(
            Code.JOIN_BUNDLE_INVALID,
            f"this is not a {kind} of version {_VERSION}",
            hint="check which file was given",
        )
    return found


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise FedftError(Code.JOIN_BUNDLE_INVALID, f"{name} is missing")
    return value
