"""Seconds per phase of a round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fedft import clock
from fedft.statements import PrivacyStatement
from fedft.store import EvaluationRecord, RoundRecord, SecaggRecord, UpdateRecord


class PhaseTimer:
    """Times the phases of one round, and the round."""

    def __init__(self) -> None:
        self._start = clock.monotonic()
        self._phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the phase ``name``."""
        start = clock.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + clock.monotonic() - start

    def record(
        self,
        number: int,
        digest: str,
        *,
        updates: Sequence[UpdateRecord],
        evaluations: Sequence[EvaluationRecord],
        residual_digest: str = "",
        privacy: PrivacyStatement | None = None,
        next_max_norm: float = 0.0,
        averaging_error: float | None = None,
        secagg: SecaggRecord | None = None,
    ) -> RoundRecord:
        """Return the round's record with the times so far."""
        seconds = clock.monotonic() - self._start
        return RoundRecord(
            number,
            digest,
            residual_digest,
            seconds,
            dict(self._phases),
            tuple(updates),
            tuple(evaluations),
            privacy=privacy,
            next_max_norm=next_max_norm,
            averaging_error=averaging_error,
            secagg=secagg,
        )
