"""Who is enrolled, what the operator wants of each run, and what went wrong at the door."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedft import clock
from fedft.errors import Code, FedftError
from fedft.identity.keys import parse_public_signing_key
from fedft.identity.members import Member, Role
from fedft.sqlite import Schema, open_sqlite, transaction, translated
from fedft.statements import LedgerWitness

DesiredState = Literal["run", "paused", "stopped"]
_MOST_INCIDENTS = 10_000
_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS members (
        fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, signing_key TEXT NOT NULL,
        enrolled_at TEXT NOT NULL, expires_at TEXT NOT NULL, revoked_at TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '') STRICT
    """,
    "CREATE UNIQUE INDEX IF NOT EXISTS one_key_for_a_name ON members (name) WHERE revoked_at = ''",
    "CREATE TABLE IF NOT EXISTS wanted (run TEXT PRIMARY KEY, wanted TEXT NOT NULL) STRICT",
    """
    CREATE TABLE IF NOT EXISTS incidents (
        sequence INTEGER PRIMARY KEY, time TEXT NOT NULL, member TEXT NOT NULL, code TEXT NOT NULL,
        message TEXT NOT NULL) STRICT
    """,
)
_WITNESSES = (
    """
    CREATE TABLE witnesses (
        member TEXT NOT NULL, sequence INTEGER NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (member, sequence)) STRICT
    """,
)
SCHEMA = Schema(
    "a server's registry",
    (_TABLES, _WITNESSES),
    unusable=Code.REGISTRY_UNUSABLE,
    unknown=Code.REGISTRY_UNUSABLE,
)


@dataclass(frozen=True)
class MemberRecord:
    """A row of the registry; times are ISO 8601 in UTC, ``revoked_at`` empty while the key is good."""

    fingerprint: str
    name: str
    role: Role
    signing_key: str
    enrolled_at: str
    expires_at: str
    revoked_at: str = ""
    reason: str = ""


class Registry:
    """The server's registry in one SQLite file; every write is durable when the method returns."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._database = open_sqlite(path, SCHEMA)
        self._database.row_factory = sqlite3.Row

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # -- members ---------------------------------------------------------------------------------------

    def require(self, fingerprint: str, *roles: Role) -> Member:
        """Return the member with this key; see ``fedft.identity.members.MemberDirectory``."""
        rows = self._read("SELECT * FROM members WHERE fingerprint = ?", fingerprint)
        if not rows:
            raise FedftError(
                Code.KEY_NOT_ENROLLED,
                f"key {fingerprint[:16]}… is not enrolled",
                hint="send request.json to the server's operator: fedft admin clients enroll",
            )
        record = MemberRecord(**rows[0])
        if record.revoked_at:
            raise FedftError(
                Code.KEY_REVOKED,
                f"the key of {record.name} was revoked at {record.revoked_at}: {record.reason}",
                hint="ask the server's operator; a new key needs a new request",
            )
        if record.role not in roles:
            raise FedftError(
                Code.ROLE_NOT_ALLOWED,
                f"{record.name} has the role {record.role}; this takes {' or '.join(roles)}",
            )
        key = parse_public_signing_key(record.signing_key.encode()) if record.signing_key else None
        return Member(record.fingerprint, record.name, record.role, key)

    def members(self) -> list[MemberRecord]:
        """Return all members, revoked ones too, by time of enrolment."""
        return [MemberRecord(**row) for row in self._read("SELECT * FROM members ORDER BY enrolled_at, name")]

    def member(self, name: str) -> MemberRecord:
        """Return the member of this name, the revoked one if there is no other; FEDFT-6206 when unknown."""
        found = [record for record in self.members() if record.name == name]
        if not found:
            known = ", ".join(record.name for record in self.members()) or "none"
            raise FedftError(
                Code.MEMBER_NOT_FOUND, f"nobody is enrolled as {name!r}", hint=f"enrolled: {known}"
            )
        return next((record for record in found if not record.revoked_at), found[-1])

    def role_of(self, fingerprint: str) -> Role | None:
        """Return the role of a key that is enrolled; None for one that is not."""
        rows = self._read("SELECT role FROM members WHERE fingerprint = ? AND revoked_at = ''", fingerprint)
        return rows[0]["role"] if rows else None

    def enroll(self, record: MemberRecord, *, replace: bool = False) -> list[MemberRecord]:
        """Add a member or renew its certificate; return the members that it replaces.

        Raises:
            FedftError: FEDFT-6205 when the name belongs to another key and ``replace`` is not set, or the
                key was revoked or has another name; FEDFT-6215 when no operator would be left.

        """
        with self._write() as database, _keeping_an_operator(database):
            rows = database.execute("SELECT * FROM members WHERE fingerprint = ?", (record.fingerprint,))
            present = [MemberRecord(**row) for row in rows]
            if present and (present[0].revoked_at or present[0].name != record.name):
                raise FedftError(
                    Code.ENROLMENT_CONFLICT,
                    f"this key was enrolled as {present[0].name}"
                    + (" and revoked" if present[0].revoked_at else ""),
                    hint="the site needs new keys: fedft client join in a new folder",
                )
            others = self._holders(database, record)
            if others and not replace:
                raise FedftError(
                    Code.ENROLMENT_CONFLICT,
                    f"{record.name} is enrolled with another key",
                    hint="choose another name, or replace the key with --replace",
                )
            for other in others:
                _revoke(database, other.fingerprint, "replaced by a new key")
            database.execute("DELETE FROM members WHERE fingerprint = ?", (record.fingerprint,))
            values = tuple(vars(record).values())
            database.execute(f"INSERT INTO members VALUES ({', '.join('?' * len(values))})", values)
        return others

    def revoke(self, name: str, reason: str) -> MemberRecord:
        """Take a member's key back; FEDFT-6206 when nobody has the name, 6215 for the last operator."""
        record = self.member(name)
        if record.revoked_at:
            raise FedftError(Code.MEMBER_NOT_FOUND, f"{name} is revoked already, since {record.revoked_at}")
        with self._write() as database, _keeping_an_operator(database):
            _revoke(database, record.fingerprint, reason)
        return self.member(name)

    def _holders(self, database: sqlite3.Connection, record: MemberRecord) -> list[MemberRecord]:
        query = "SELECT * FROM members WHERE name = ? AND revoked_at = '' AND fingerprint != ?"
        return [MemberRecord(**row) for row in database.execute(query, (record.name, record.fingerprint))]

    # -- runs ------------------------------------------------------------------------------------------

    def want(self, run: str, wanted: DesiredState) -> None:
        """Write down what the operator wants of a run."""
        with self._write() as database:
            database.execute("INSERT OR REPLACE INTO wanted VALUES (?, ?)", (run, wanted))

    def wanted(self) -> dict[str, DesiredState]:
        """Return what the operator wants of each run."""
        return {row["run"]: row["wanted"] for row in self._read("SELECT * FROM wanted")}

    # -- ledgers ---------------------------------------------------------------------------------------

    def witness(self, member: str, shown: LedgerWitness) -> None:
        """Keep an entry that a member has shown of its ledger; FEDFT-8211 where it contradicts another."""
        row = (member, shown.sequence, shown.digest)
        with self._write() as database:
            database.execute("INSERT OR IGNORE INTO witnesses VALUES (?, ?, ?)", row)
            query = "SELECT digest FROM witnesses WHERE member = ? AND sequence = ?"
            (known,) = database.execute(query, row[:2]).fetchone()
        if known != shown.digest:
            raise FedftError(
                Code.LEDGER_FORKED,
                f"{member} has shown another entry {shown.sequence} of its ledger before: an old copy was "
                "put back, or two are in use",
                hint="let the site put its newest copy back; fedft admin incidents",
            )

    def last_witness(self, member: str) -> LedgerWitness | None:
        """Return the entry of the highest number that a member has shown; None when it has shown none."""
        query = "SELECT sequence, digest FROM witnesses WHERE member = ? ORDER BY sequence DESC LIMIT 1"
        rows = self._read(query, member)
        return LedgerWitness(**rows[0]) if rows else None

    # -- incidents -------------------------------------------------------------------------------------

    def incident(self, member: str, code: str, message: str) -> None:
        """Note something that the operator should look at; the oldest of very many are dropped."""
        with self._write() as database:
            row = (_now(), member, code, message[:2000])
            database.execute("INSERT INTO incidents (time, member, code, message) VALUES (?, ?, ?, ?)", row)
            limit = "(SELECT max(sequence) FROM incidents) - ?"
            database.execute(f"DELETE FROM incidents WHERE sequence <= {limit}", (_MOST_INCIDENTS,))

    def incidents(self, last: int = 0) -> list[dict[str, str]]:
        """Return the last incidents, oldest first; all for 0."""
        query = "SELECT time, member, code, message FROM incidents ORDER BY sequence DESC LIMIT ?"
        return self._read(query, last or -1)[::-1]

    # -- database --------------------------------------------------------------------------------------

    def _read(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock, translated(self._path, SCHEMA):
            return [dict(row) for row in self._database.execute(query, values)]

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self._path, SCHEMA), transaction(self._database) as database:
            yield database


@contextmanager
def _keeping_an_operator(database: sqlite3.Connection) -> Iterator[None]:
    query = "SELECT count(*) FROM members WHERE role = 'operator' AND revoked_at = ''"
    before = database.execute(query).fetchone()[0]
    yield
    if before and not database.execute(query).fetchone()[0]:
        raise FedftError(
            Code.LAST_OPERATOR,
            "this would leave the server without an operator",
            hint="enroll another operator first: fedft admin clients enroll --role operator",
        )


def _revoke(database: sqlite3.Connection, fingerprint: str, reason: str) -> None:
    query = "UPDATE members SET revoked_at = ?, reason = ? WHERE fingerprint = ?"
    database.execute(query, (_now(), reason, fingerprint))


def _now() -> str:
    return clock.now().isoformat(timespec="seconds")
