"""Running every test of the audit on one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedft import clock
from fedft.privacy.audit.distinguisher import attack_distinguisher
from fedft.privacy.audit.engine import DpSgdEngine, MakeEngine
from fedft.privacy.audit.noise_law import attack_noise_law
from fedft.privacy.audit.one_run import attack_one_run
from fedft.privacy.audit.report import AuditReport, Finding
from fedft.privacy.audit.sampling_law import attack_sampling_law
from fedft.privacy.audit.sensitivity import attack_sensitivity


@dataclass(frozen=True)
class Effort:
    """How much of each test to do: cases, releases, batches, runs in each world, canaries."""

    sensitivity: int
    noise: int
    sampling: int
    distinguisher: int
    canaries: int


QUICK = Effort(sensitivity=30, noise=1500, sampling=3000, distinguisher=1500, canaries=1000)
FULL = Effort(sensitivity=300, noise=6000, sampling=20_000, distinguisher=20_000, canaries=1000)


def audit(
    make: MakeEngine = DpSgdEngine, effort: Effort = FULL, *, begun: Callable[[str], None] = lambda _: None
) -> AuditReport:
    """Attack an engine, by default the one that this package trains with, and report every measurement.

    No false alarm is expected in some 10⁵ audits of a right engine. With `FULL` it takes a minute or two on
    one core, with `QUICK` seconds. `begun` is told the name of each test before it runs.
    """
    started = clock.monotonic()
    attacks: dict[str, Callable[[], Iterable[Finding]]] = {
        "sensitivity": lambda: attack_sensitivity(make, cases=effort.sensitivity),
        "noise law": lambda: attack_noise_law(make, releases=effort.noise),
        "sampling law": lambda: attack_sampling_law(make, batches=effort.sampling),
        "distinguisher": lambda: attack_distinguisher(make, runs=effort.distinguisher),
        "one run": lambda: attack_one_run(make, canaries=effort.canaries),
    }
    findings: list[Finding] = []
    for name, attack in attacks.items():
        begun(name)
        findings += attack()
    return AuditReport(tuple(findings), clock.monotonic() - started)
