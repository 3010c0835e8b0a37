"""An append-only hash chain in SQLite, with its head noted in a second file.

Durability: the rollback journal with `synchronous = EXTRA` survives a power cut after a commit returns, and
leaves one file to copy. Order is the sequence number; no clock takes part. The head file is a text log of
`sequence digest` lines; a database that lacks a noted entry was cut, replaced or restored from an old copy.
Whoever can rewrite both files consistently can forge both: the chain guards against accident, partial
tampering and everything remote, not against the site's own administrator.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedft.errors import Code, FedftError
from fedft.sqlite import Schema, open_sqlite, translated

Body = dict[str, Any]
GENESIS = bytes(32)

_TABLES = (
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL, digest BLOB NOT NULL) STRICT",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)


def _unnumbered(database: sqlite3.Connection) -> int:
    """Return 1, the version of chains that no number was written into; 0 for an empty file."""
    found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone()
    return 1 if found else 0


def _never_empty(database: sqlite3.Connection) -> int:
    if not _unnumbered(database):
        raise FedftError(
            Code.LEDGER_ALTERED, "the ledger's file is there and holds no entries", hint="restore it"
        )
    return 1


NEW = Schema(
    "a hash chain",
    (_TABLES,),
    unusable=Code.LEDGER_UNUSABLE,
    unknown=Code.LEDGER_ALTERED,
    journal="DELETE",
    unnumbered=_unnumbered,
)
_PRESENT = replace(NEW, unnumbered=_never_empty)
_HEAD_LINE = re.compile(rb"(\d+) ([0-9a-f]{64})")


@dataclass(frozen=True)
class Entry:
    """One link: its number from 1, what it says, and the digest of everything up to it."""

    sequence: int
    body: Body
    digest: str


def canonical(body: Body) -> str:
    """Return the one text of a body, which its digest covers."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def link(previous: bytes, sequence: int, body: str) -> bytes:
    """Return SHA-256(previous digest, sequence, body text), the digest of an entry."""
    return hashlib.sha256(previous + sequence.to_bytes(8, "big") + body.encode()).digest()


class HashChain:
    """The chain at `path`; every call opens its own connection, so threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head_path = path.with_name(path.name + ".head")
        self._sequence, self._digest = 0, GENESIS

    @property
    def head(self) -> tuple[int, str]:
        """Sequence and digest of the last entry that was verified."""
        return self._sequence, self._digest.hex()

    def create(self) -> None:
        """Make an empty chain.

        Raises:
            FedftError: FEDFT-8202 if either file exists, FEDFT-8208 if they cannot be written.

        """
        try:
            for path in (self.path, self._head_path):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError as error:
            raise FedftError(
                Code.LEDGER_EXISTS, f"there is a ledger at {error.filename} already", hint="open it instead"
            ) from error
        except OSError as error:
            raise _unwritable(self.path, error) from error
        open_sqlite(self.path, NEW, create=False).close()
        _sync(self.path.parent)

    def read(self) -> list[Entry]:
        """Return the entries after the last one that was verified, verified.

        Raises:
            FedftError: FEDFT-8201 (missing), FEDFT-8203 (altered), FEDFT-8204 (cut off), FEDFT-8208 (locked).

        """
        with self._connection() as database:
            new = self._follow(database)
        self._check_head_file()
        return new

    def holds(self, sequence: int, digest: str) -> bool:
        """Whether there is an entry of this number with this digest."""
        with self._connection() as database:
            query = "SELECT 1 FROM entries WHERE sequence = ? AND digest = ?"
            return database.execute(query, (sequence, bytes.fromhex(digest))).fetchone() is not None

    def append(self, decide: Callable[[list[Entry]], Body | None]) -> Entry | None:
        """Append what `decide` returns, durable before this returns; nothing else can append in between.

        Args:
            decide: gets the entries that were added since the last call; returns None to append nothing.

        Raises:
            FedftError: as `read`, and whatever `decide` raises.

        """
        with self._connection() as database:
            database.execute("BEGIN IMMEDIATE")
            body = decide(self._follow(database))
            if body is None:
                return None
            text = canonical(body)
            sequence = self._sequence + 1
            digest = link(self._digest, sequence, text)
            database.execute("INSERT INTO entries VALUES (?, ?, ?)", (sequence, text, digest))
            database.execute("COMMIT")
        self._note_head(sequence, digest)
        self._sequence, self._digest = sequence, digest
        return Entry(sequence, json.loads(text), digest.hex())

    def check_writable(self) -> None:
        """Write an entry and take it back, and open the head file for writing.

        Raises:
            FedftError: FEDFT-8208 when either is refused, as in a folder that may only be read.

        """
        with self._connection() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO entries VALUES (?, ?, ?)", (2**62, "{}", GENESIS))
            database.execute("ROLLBACK")
        try:
            os.close(os.open(self._head_path, os.O_WRONLY | os.O_APPEND))
        except OSError as error:
            raise _unwritable(self._head_path, error) from error

    def _follow(self, database: sqlite3.Connection) -> list[Entry]:
        """Check that the last verified entry is still there, then verify everything after it."""
        sequence, digest = self._sequence, self._digest
        self._check_present(database, sequence, digest)
        entries = []
        rows = database.execute("SELECT * FROM entries WHERE sequence > ? ORDER BY sequence", (sequence,))
        for number, text, stored in rows:
            sequence += 1
            digest = link(digest, sequence, text)
            if number != sequence or stored != digest:
                raise FedftError(
                    Code.LEDGER_ALTERED,
                    f"entry {number} of the ledger {self.path} does not follow from the ones before it",
                    hint="the file was altered or damaged; restore it, and add nothing by hand",
                )
            entries.append(Entry(sequence, json.loads(text), digest.hex()))
        self._sequence, self._digest = sequence, digest
        return entries

    def _check_present(self, database: sqlite3.Connection, sequence: int, digest: bytes) -> None:
        if sequence == 0:
            return
        row = database.execute("SELECT digest FROM entries WHERE sequence = ?", (sequence,)).fetchone()
        if row is None or row[0] != digest:
            raise self._cut_off(sequence)

    def _check_head_file(self) -> None:
        try:
            lines = self._head_path.read_bytes().splitlines()
        except OSError as error:
            raise self._cut_off(0) from error
        noted = [match for line in lines if (match := _HEAD_LINE.fullmatch(line))]
        with self._connection() as database:
            for match in noted:
                self._check_present(database, int(match[1]), bytes.fromhex(match[2].decode()))
        if self._sequence and (not noted or int(noted[-1][1]) < self._sequence):
            self._note_head(self._sequence, self._digest)

    def _note_head(self, sequence: int, digest: bytes) -> None:
        # The leading newline keeps a line that a crash has cut short from swallowing this one.
        try:
            file = os.open(self._head_path, os.O_WRONLY | os.O_APPEND)
            with closing(os.fdopen(file, "wb", buffering=0)) as log:
                log.write(b"\n%d %s\n" % (sequence, digest.hex().encode()))
                os.fsync(log.fileno())
        except OSError as error:
            raise _unwritable(self._head_path, error) from error

    def _cut_off(self, sequence: int) -> FedftError:
        return FedftError(
            Code.LEDGER_ROLLED_BACK,
            f"the ledger {self.path} lacks entry {sequence}, which {self._head_path.name} has noted"
            if sequence
            else f"the head file {self._head_path} is missing",
            hint="a file was cut, replaced or restored from an old copy; restore both from the same moment",
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise FedftError(
                Code.LEDGER_NOT_FOUND,
                f"there is no ledger at {self.path}",
                hint="restore it; only for data that nothing was ever released from, create a new one",
            )
        database = open_sqlite(self.path, _PRESENT, create=False)
        with closing(database), translated(self.path, _PRESENT):
            yield database


def _unwritable(path: Path, error: Exception) -> FedftError:
    return FedftError(
        Code.LEDGER_UNUSABLE,
        f"the ledger {path} cannot be written: {error}",
        hint="nothing was released; check the disk, the permissions and who holds the file",
    )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
