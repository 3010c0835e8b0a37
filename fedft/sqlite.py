"""SQLite files: opened in one way, and brought from any earlier version to this one's.

A file's version is its ``user_version``: the number of migrations that it has been through. Each migration
is one transaction, so that a crash leaves a file of some version and never something in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedft.errors import Code, FedftError

_LOCK_SECONDS = 120.0


def _numbered(_connection: sqlite3.Connection) -> int:
    return 0


@dataclass(frozen=True)
class Schema:
    """What a kind of file holds.

    Args:
        what: the kind, as in "... is not a run store".
        migrations: the statements that lead from each version to the next; the first makes the tables.
        unusable: code of a file that cannot be opened or written.
        unknown: code of a file that is of another kind, damaged, or of a later version.
        journal: ``WAL`` for readers beside a writer; ``DELETE`` for one file that can be copied.
        unnumbered: the version of a file that was written before versions were numbered here.

    """

    what: str
    migrations: tuple[tuple[str, ...], ...]
    unusable: Code
    unknown: Code
    journal: Literal["WAL", "DELETE"] = "WAL"
    unnumbered: Callable[[sqlite3.Connection], int] = _numbered

    @property
    def version(self) -> int:
        """The version that this build reads and writes."""
        return len(self.migrations)


def open_sqlite(path: Path, schema: Schema, *, create: bool = True) -> sqlite3.Connection:
    """Open a file whose commits survive a crash of the machine, at this build's version.

    The connection may be used by several threads, one at a time, and begins no transaction by itself.

    Args:
        path: of the file; its folder is made too where the file may be.
        schema: of the file's kind.
        create: whether a missing file is made.

    Raises:
        FedftError: ``schema.unusable`` or ``schema.unknown``.

    """
    if create:
        _make_folder(path.parent, schema)
    uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    with translated(path, schema):
        connection = sqlite3.connect(
            uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
    try:
        with translated(path, schema):
            connection.execute(f"PRAGMA journal_mode = {schema.journal}")
            connection.execute(f"PRAGMA synchronous = {'FULL' if schema.journal == 'WAL' else 'EXTRA'}")
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection, path, schema)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Write in one transaction: committed at the end, rolled back if anything is raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path, schema: Schema) -> Iterator[None]:
    """Turn what SQLite raises into an error with the code of this kind of file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = "check disk space and permissions, and who holds the file"
        raise FedftError(schema.unusable, f"cannot use {path}: {error}", hint=hint) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        hint = "restore the file; the docs' page on operations says how"
        raise FedftError(schema.unknown, f"{path} is not {schema.what}: {error}", hint=hint) from error


def _make_folder(folder: Path, schema: Schema) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedftError(schema.unusable, f"cannot create {folder}: {error.strerror}") from error


def _migrate(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    if _version(connection) == schema.version:
        return
    with transaction(connection):  # several processes may open a file at once; one migrates it
        version = _version(connection) or schema.unnumbered(connection)
        if version > schema.version:
            raise FedftError(
                schema.unknown,
                f"{path} has version {version}, this fedft reads versions up to {schema.version}",
                hint="use the fedft version that wrote it",
            )
        for statements in schema.migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {schema.version}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
