"""What the admin service answers: one typed model for each method, with a JSON Schema.

``fedft admin ... --json`` prints these, and ``fedft admin schema`` describes them.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from fedft.store import RoundRecord, UpdateRecord

SCHEMA_VERSION = 1


class Answer(BaseModel):
    """A document of the admin service. Times are ISO 8601 in UTC, empty where there is none."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class Health(Answer):
    """How the server is: ``status`` is "ok" or says what is wrong."""

    status: str
    version: str
    up_seconds: float
    connected: list[str]
    current_run: str
    certificate_expires: str
    link: str
    admin: str


class Connection(Answer):
    """A site's stream: ``since`` in seconds since 1970, the peer's address, its version of fedft."""

    since: float
    peer: str
    software: str


class MemberState(Answer):
    """Somebody who is or was enrolled; ``fingerprint`` is SHA-256 of the TLS key in hex."""

    fingerprint: str
    name: str
    role: str
    enrolled_at: str
    expires_at: str
    revoked_at: str
    reason: str
    connected: bool
    connection: Connection | None


class Members(Answer):
    """Everybody who is or was enrolled."""

    clients: list[MemberState]


class Enrolled(MemberState):
    """A member that was just enrolled, with its certificate in PEM."""

    certificate: str


class Incident(Answer):
    """Something that was refused at the link."""

    time: str
    member: str
    code: str
    message: str


class Incidents(Answer):
    """What was refused at the link, oldest first."""

    incidents: list[Incident]


class Part(Answer):
    """One client's part in one round."""

    run: str
    round: int
    update: UpdateRecord


class MemberDetail(MemberState):
    """A member with its last incidents and its part in the last rounds."""

    incidents: list[Incident]
    rounds: list[Part]


class RunState(Answer):
    """How a run stands: ``state`` is running, waiting, ending, paused, stopped, failed or completed."""

    id: str
    name: str
    status: str
    created_at: str
    version: str
    base_digest: str
    frame_digest: str
    manifest_digest: str
    final_digest: str
    error: str
    rounds: int
    state: str
    total_rounds: int


class Runs(Answer):
    """All runs, oldest first."""

    runs: list[RunState]


class RunEvent(Answer):
    """Something out of the ordinary in a run."""

    time: str
    kind: str
    message: str


class RunDetail(RunState):
    """A run with its committed rounds and its events."""

    committed: list[RoundRecord]
    events: list[RunEvent]


class RoundDetail(Answer):
    """One committed round of a run."""

    run: str
    record: RoundRecord


class AuditLogEntries(Answer):
    """Entries of the verified audit log, oldest first."""

    entries: list[dict[str, str | int | float | bool | None]]


class ConfigCheck(Answer):
    """A configuration that this server can carry out; counts are None where the server needs no records."""

    name: str
    model: str
    test_records: int | None = None
    public_records: int | None = None


ANSWERS: dict[str, type[Answer]] = {
    "Health": Health,
    "ListClients": Members,
    "ShowClient": MemberDetail,
    "ListRuns": Runs,
    "ShowRun": RunDetail,
    "ShowRound": RoundDetail,
    "ReadAuditLog": AuditLogEntries,
    "ReadIncidents": Incidents,
    "ValidateConfig": ConfigCheck,
    "Enroll": Enrolled,
    "RevokeClient": MemberState,
    "StartRun": RunState,
    "PauseRun": RunState,
    "ResumeRun": RunState,
    "StopRun": RunState,
    "RollBackRun": RunState,
}
"""What each method answers."""
