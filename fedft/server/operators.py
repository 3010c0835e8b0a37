"""Operators by whoever has the server's folder, when no other operator can help."""

from __future__ import annotations

from pathlib import Path

from fedft.files import write_atomically
from fedft.identity.authority import Authority
from fedft.identity.enrolment import enroll
from fedft.identity.registry import Registry
from fedft.identity.site_files import CERTIFICATE, REQUEST, make_identity, write_admin_file
from fedft.server.admin.audit_log import AuditLog
from fedft.server.settings import ServerSettings


def enroll_operator(settings: ServerSettings, folder: Path, name: str) -> Path:
    """Make an operator's identity in ``folder``, or renew the certificate of the one that lies there.

    For whoever can write the server's folder; it needs no other operator, and the server may be running.

    Returns:
        The path of the certificate.

    Raises:
        FedftError: FEDFT-6205 when the name has another key or the key was revoked, FEDFT-7056 the name.

    """
    request = folder / REQUEST
    if not request.exists():
        make_identity(folder, name, settings.bundle())
        write_admin_file(folder, settings.bundle().admin_address)
    registry = Registry(settings.folder / "server.sqlite")
    AuditLog(settings.folder / "audit.sqlite").write("the server's own machine", "enroll operator", name=name)
    authority = Authority(settings.folder / "ca")
    _, certificate, _ = enroll(registry, authority, request.read_text("utf-8"), "operator")
    registry.close()
    write_atomically(folder / CERTIFICATE, certificate.encode())
    return folder / CERTIFICATE
