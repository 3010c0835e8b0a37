"""Keys and certificates on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from fedft.client.daemon.daemon import require_valid_certificate
from fedft.client.site.config import load_site
from fedft.errors import FedftError
from fedft.identity import keys
from tests.transport.conftest import Server, server

__all__ = ["server"]

EDWARDS, CURVE = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("load", "data", "words"),
    [
        (keys.load_tls_key, None, "cannot read"),
        (keys.load_signing_key, None, "cannot read"),
        (keys.load_certificate, None, "cannot read"),
        (keys.load_tls_key, b"no key", "is no private key"),
        (keys.load_tls_key, _pem(EDWARDS), "is no elliptic-curve key"),
        (keys.load_tls_key, _pem(RSA), "is no elliptic-curve key"),
        (keys.load_signing_key, _pem(CURVE), "is no Ed25519 key"),
        (keys.load_certificate, _pem(CURVE), "is no certificate"),
    ],
)
def test_a_file_that_is_missing_or_something_else_is_named(
    load: Callable[[Path], object], data: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.pem"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(FedftError, match=f"FEDFT-7053 .*{words}"):
        load(path)


def test_a_key_that_needs_a_password_is_refused(tmp_path: Path) -> None:
    locked = CURVE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "tls.key").write_bytes(locked)

    with pytest.raises(FedftError, match="FEDFT-7053"):
        keys.load_tls_key(tmp_path / "tls.key")


def test_a_certificate_of_another_key_is_not_used(server: Server) -> None:
    mine, other = server.join("mine"), server.join("other")
    (mine / "certificate.pem").write_bytes((other / "certificate.pem").read_bytes())

    with pytest.raises(FedftError, match=r"FEDFT-7053 .*another key"):
        require_valid_certificate(load_site(mine / "site.toml"))


def test_a_certificate_that_has_expired_is_not_used(server: Server) -> None:
    site = load_site(server.join(days=-1) / "site.toml")

    with pytest.raises(FedftError, match=r"FEDFT-7054 .*valid from"):
        require_valid_certificate(site)
