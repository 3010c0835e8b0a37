"""What a client has committed itself to in secure aggregation, on disk before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from fedft.errors import Code
from fedft.secagg.journal import Step
from fedft.sqlite import Schema, open_sqlite, transaction, translated

_TABLES = (
    """
    CREATE TABLE entries (
        step TEXT NOT NULL, subject BLOB NOT NULL, content BLOB NOT NULL, PRIMARY KEY (step, subject)) STRICT
    """,
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)
SCHEMA = Schema(
    "a journal of secure aggregation",
    (_TABLES,),
    unusable=Code.SITE_DISK_UNWRITABLE,
    unknown=Code.SECAGG_STATE_DAMAGED,
    journal="DELETE",
)


class DurableJournal:
    """A `fedft.secagg.journal.Journal` in one file, which must never be set back to an earlier copy.

    Args:
        path: of the file.
        create: whether it may be a new one.

    Raises:
        FedftError: FEDFT-7055 when it cannot be opened or written, FEDFT-8825 when it is damaged.

    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        self._database = open_sqlite(path, SCHEMA, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._database.close()

    def find(self, step: Step, subject: bytes) -> bytes | None:
        """Return the content of the entry, or None."""
        query = "SELECT content FROM entries WHERE step = ? AND subject = ?"
        with translated(self._path, SCHEMA):
            row = self._database.execute(query, (str(step), subject)).fetchone()
        return None if row is None else bytes(row[0])

    def append(self, step: Step, subject: bytes, content: bytes) -> None:
        """Write an entry; it survives a power cut when this returns. FEDFT-8825 where there is one."""
        with translated(self._path, SCHEMA), transaction(self._database) as database:
            database.execute("INSERT INTO entries VALUES (?, ?, ?)", (str(step), subject, content))
