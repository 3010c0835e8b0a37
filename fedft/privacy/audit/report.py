"""What an audit found."""

from __future__ import annotations

from dataclasses import dataclass

from fedft.errors import Code, FedftError


@dataclass(frozen=True)
class Finding:
    """One measurement beside the value that the claim allows.

    Attributes:
        test: which attack.
        what: what was measured.
        measured: its value.
        allowed: the largest value that is consistent with the claim.

    """

    test: str
    what: str
    measured: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the claim survived; a NaN does not."""
        return self.measured <= self.allowed


@dataclass(frozen=True)
class AuditReport:
    """All findings of an audit.

    Attributes:
        findings: in the order of the tests.
        seconds: how long it took.

    """

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every finding passed."""
        return all(finding.passed for finding in self.findings)

    def require_passed(self) -> None:
        """Refuse an engine that leaks more than it claims.

        Raises:
            FedftError: FEDFT-8701 with every finding that failed.

        """
        failed = [finding for finding in self.findings if not finding.passed]
        if failed:
            listed = "\n  ".join(
                f"{one.test}: {one.what} is {one.measured:.4g}, at most {one.allowed:.4g} fits the claim"
                for one in failed
            )
            raise FedftError(
                Code.AUDIT_FAILED,
                f"the privacy audit found {len(failed)} violations of the claim:\n  {listed}",
                hint="release nothing from this engine",
            )
