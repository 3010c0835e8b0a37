"""An audit: attacks on the private step that measure how much it leaks, beside what it claims.

An audit can show that a claim is false, never that it is true. Each test here has caught engines that are
broken in one particular way; `tests/privacy/broken_engines.py` holds them.
"""

from fedft.privacy.audit.engine import DpSgdEngine, Engine, MakeEngine, Setting
from fedft.privacy.audit.report import AuditReport, Finding
from fedft.privacy.audit.run import FULL, QUICK, Effort, audit

__all__ = [
    "FULL",
    "QUICK",
    "AuditReport",
    "DpSgdEngine",
    "Effort",
    "Engine",
    "Finding",
    "MakeEngine",
    "Setting",
    "audit",
]
