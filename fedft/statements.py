"""What is stated about the privacy of a release: one value from the mechanism to the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class PrivacyMechanism(StrEnum):
    """How a release was made private."""

    DP_SGD = "dp-sgd"
    """Clipped and noised gradients of examples, at a client."""

    GAUSSIAN = "gaussian"
    """Clipped and noised updates of clients, at the server."""


class PrivacyUnit(StrEnum):
    """Whose presence the guarantee hides."""

    EXAMPLE = "example"
    CLIENT = "client"


@dataclass(frozen=True)
class LedgerWitness:
    """One entry of a site's ledger, as others may know it.

    The digest covers everything up to the entry, a random number of the site's own among it: it tells of no
    record, and nobody can make another ledger that has it.

    Attributes:
        sequence: number of the entry, from 1.
        digest: SHA-256 in hex.

    """

    sequence: int
    digest: str


@dataclass(frozen=True)
class PrivacyStatement:
    """What whoever added the noise says of a release.

    A client's statement travels with its update and stands in the update's record; the server's stands in the
    round's record. Nobody can check another's statement.

    Attributes:
        mechanism: what was done.
        unit: whose presence is hidden.
        noise_multiplier: deviation of the noise over ``max_norm``.
        max_norm: L2 bound of one unit's contribution.
        sample_rate: probability that a unit is in one step.
        steps: of this release.
        epsilon: spent in the run so far, this release and repeated and lost rounds included; may be infinite.
        delta: at which ``epsilon`` holds.
        accountant: what computed it.
        ledger: the entry that this release was charged with; None where the ledger has no number of its own
            that hides its records (format 1), and for releases of the server.

    """

    mechanism: PrivacyMechanism
    unit: PrivacyUnit
    noise_multiplier: float
    max_norm: float
    sample_rate: float
    steps: int
    epsilon: float
    delta: float
    accountant: str
    ledger: LedgerWitness | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> Self | None:
        """Make a statement of plain values, as JSON holds them; None of None.

        JSON has no infinity: a missing ``epsilon`` is one.
        """
        if values is None:
            return None
        epsilon = math.inf if values["epsilon"] is None else values["epsilon"]
        kinds = {"mechanism": PrivacyMechanism(values["mechanism"]), "unit": PrivacyUnit(values["unit"])}
        ledger = values.get("ledger")
        witness = None if ledger is None else LedgerWitness(**ledger)
        return cls(**{**values, **kinds, "epsilon": epsilon, "ledger": witness})
