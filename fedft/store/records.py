"""What the store keeps, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedft.statements import PrivacyStatement

RunStatus = Literal["created", "running", "interrupted", "failed", "completed"]
UpdateStatus = Literal["accepted", "refused", "failed", "late"]
Scope = str
"""Who evaluated: "central", "federated", "pooled" (trained on all data at once), "alone:<client>"."""

UNCLIPPED = "unclipped"
"""Name of the metric of an update that is 1 if it was within the round's bound, 0 if it was clipped to it."""


@dataclass(frozen=True)
class RunRecord:
    """A run and what identifies its model.

    Digests are SHA-256 in hex; ``config`` is the effective configuration as canonical JSON; times are
    ISO 8601 in UTC. ``rounds`` is the number of the last committed round, ``total_rounds`` what the
    configuration asks for; the store reads both, nobody writes them.
    """

    id: str
    name: str
    config: str
    status: RunStatus
    created_at: str
    base_digest: str = ""
    frame_digest: str = ""
    manifest_digest: str = ""
    final_digest: str = ""
    error: str = ""
    rounds: int = 0
    version: str = ""
    total_rounds: int = 0


@dataclass(frozen=True)
class UpdateRecord:
    """One client's part in one round. ``bytes_down`` excludes ``bytes_setup`` (configuration and frame).

    ``privacy`` is what the client stated, None for a round whose updates are not private. ``kept`` and
    ``distance`` are what the round's aggregation rule made of the update (``Verdict``), None where the rule
    judges none.
    """

    client: str
    status: UpdateStatus
    code: str = ""
    message: str = ""
    weight: int = 0
    num_examples: int = 0
    digest: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_setup: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    privacy: PrivacyStatement | None = None
    kept: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class EvaluationRecord:
    """Metrics of one state. ``group`` is empty for the whole set.

    ``scope`` says what was measured: "central" (the server), "federated" (the clients), or a comparison:
    "public" (the start), "pooled", "alone:<client>".
    """

    scope: str
    group: str
    num_examples: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Delivery:
    """A client that holds a setup, so that it is not sent (or counted) again."""

    client: str
    setup_digest: str


@dataclass(frozen=True)
class SecaggRecord:
    """What masking a round took.

    ``asked`` clients, of whom ``threshold`` had to stay and ``survivors`` are in the sum. ``bytes_up`` and
    ``bytes_down`` are those of the steps around the training, which the updates' records count too.
    ``sizes`` has what the next round's grid is made for, one for each tensor. ``lost`` is the code of why the
    round has no sum and left the state as it was, empty for one that has.
    """

    asked: int
    threshold: int
    survivors: int
    bytes_up: int
    bytes_down: int
    sizes: tuple[float, ...]
    lost: str = ""


@dataclass(frozen=True)
class RoundRecord:
    """A committed round; round 0 is the state before training.

    ``residual_digest`` names what the broadcast's codec left out, empty without a codec. ``privacy`` is what
    the server states of its own noise (client-level privacy), None without it; ``next_max_norm`` is then the
    bound of the next round's updates. ``averaging_error`` is what averaging got wrong, as a share of the mean
    change of the weights (``AveragingError``), None where the run's method averages exactly. ``secagg`` is
    that of a round whose updates were masked, None without.
    """

    round: int
    state_digest: str
    residual_digest: str = ""
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    updates: tuple[UpdateRecord, ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()
    committed_at: str = ""
    privacy: PrivacyStatement | None = None
    next_max_norm: float = 0.0
    averaging_error: float | None = None
    secagg: SecaggRecord | None = None
