"""From a site's request to its certificate."""

from __future__ import annotations

from fedft import clock
from fedft.identity import keys
from fedft.identity.authority import LEAF_DAYS, Authority
from fedft.identity.documents import EnrolmentRequest, read_request
from fedft.identity.members import Role
from fedft.identity.registry import MemberRecord, Registry


def enroll(
    registry: Registry,
    authority: Authority,
    request: str,
    role: Role | None,
    *,
    replace: bool = False,
    days: int = LEAF_DAYS,
) -> tuple[MemberRecord, str, list[MemberRecord]]:
    """Enroll the sender of a request, or renew its certificate if the key is enrolled already.

    Args:
        registry: who is enrolled.
        authority: that issues the certificate.
        request: the text of the sender's request.
        role: None for the one that the key has already, or of a client.
        replace: revoke another key that has the name.
        days: until the certificate expires.

    Returns:
        The member, its certificate (PEM), and the members whose name it took over.

    Raises:
        FedftError: FEDFT-7056 the request is not sound, FEDFT-6205 the name belongs to another key,
            FEDFT-6215 no operator would be left.

    """
    found: EnrolmentRequest = read_request(request)
    certificate = authority.issue(found.name, found.tls_request.public_key(), days=days)
    fingerprint = keys.fingerprint(certificate)
    record = MemberRecord(
        fingerprint=fingerprint,
        name=found.name,
        role=role or registry.role_of(fingerprint) or "client",
        signing_key=keys.public_pem(found.signing_key).decode(),
        enrolled_at=clock.now().isoformat(timespec="seconds"),
        expires_at=certificate.not_valid_after_utc.isoformat(timespec="seconds"),
    )
    replaced = registry.enroll(record, replace=replace)
    return record, keys.certificate_pem(certificate).decode(), replaced
