"""The consortium's certificate authority, which lives with the server."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedft import clock
from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.identity import keys

_AUTHORITY_DAYS = 3650
LEAF_DAYS = 397
_RENEW_BEFORE = timedelta(days=30)
# Clocks of other machines may be slow.
_BACKDATED = timedelta(hours=1)


class Authority:
    """Issues certificates; its key and certificate lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.certificate_path = folder / "ca.crt"
        self._key = keys.load_tls_key(folder / "ca.key")
        self._certificate = keys.load_certificate(self.certificate_path)

    @classmethod
    def create(cls, folder: Path, name: str) -> Authority:
        """Make a new authority in an empty folder."""
        folder.mkdir(parents=True)
        key = keys.new_tls_key()
        subject = _subject(f"{name} certificate authority")
        builder = _builder(subject, key.public_key(), _AUTHORITY_DAYS).issuer_name(subject)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        keys.write_private(folder / "ca.key", keys.private_pem(key))
        write_atomically(folder / "ca.crt", keys.certificate_pem(certificate))
        return cls(folder)

    def issue(
        self, name: str, public_key: Any, *, hosts: Sequence[str] = (), days: int = LEAF_DAYS
    ) -> x509.Certificate:
        """Issue a certificate: for a server if it names hosts, for a client otherwise.

        Args:
            name: goes into the subject.
            public_key: that is certified.
            hosts: names and addresses under which a server is reached.
            days: until it expires, counted from now; negative for one that has expired.

        """
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = _builder(_subject(name), public_key, days).issuer_name(self._certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def renew_server(self, certificate: Path, key: Path, name: str, hosts: Sequence[str]) -> bool:
        """Issue the server's certificate unless the one that is there serves on; whether it did."""
        if certificate.exists():
            present = keys.load_certificate(certificate)
            lasts = present.not_valid_after_utc - clock.now() > _RENEW_BEFORE
            if lasts and _hosts_of(present) == [str(value.value) for value in _names(hosts)]:
                return False
        if not key.exists():
            key.parent.mkdir(parents=True, exist_ok=True)
            keys.write_private(key, keys.private_pem(keys.new_tls_key()))
        issued = self.issue(name, keys.load_tls_key(key).public_key(), hosts=hosts)
        write_atomically(certificate, keys.certificate_pem(issued))
        return True


def _builder(subject: x509.Name, public_key: Any, days: int) -> x509.CertificateBuilder:
    now = clock.now()
    begin = now - _BACKDATED if days >= 0 else now + timedelta(days=2 * days)
    builder = x509.CertificateBuilder().subject_name(subject).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(begin).not_valid_after(now + timedelta(days=days))


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    if not hosts:
        raise FedftError(
            Code.SERVER_SETTINGS_INVALID, "the server has no host name", hint="give one with --host"
        )
    return [_name(host) for host in hosts]


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]
