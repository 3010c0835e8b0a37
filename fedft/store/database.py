"""Opening the database of a run store, and creating it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.exc import DatabaseError, OperationalError

from fedft.errors import Code, FedftError
from fedft.store import schema


def open_database(path: Path) -> Engine:
    """Open or create a database whose commits survive a crash of the machine.

    Raises:
        FedftError: FEDFT-6004 when it cannot be opened or written, FEDFT-6006 when it is no run store or
            one of another version.

    """
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    try:
        version = _prepare(engine)
    except OperationalError as error:
        raise FedftError(Code.STORE_UNUSABLE, f"cannot open {path}: {error.orig}") from error
    except DatabaseError as error:
        raise FedftError(Code.STORE_FORMAT_UNKNOWN, f"{path} is not a run store: {error.orig}") from error
    if version != schema.SCHEMA_VERSION:
        raise FedftError(
            Code.STORE_FORMAT_UNKNOWN,
            f"{path} has store version {version}, this fedft reads version {schema.SCHEMA_VERSION}",
            hint="use the fedft version that wrote it",
        )
    return engine


def _prepare(engine: Engine) -> int:
    """Create the tables unless they are there; return the version of the store."""
    with engine.connect() as connection:
        if inspect(connection).has_table(schema.meta.name):
            return int(connection.execute(select(schema.meta.c.schema_version)).scalar_one())
    with engine.begin() as connection:
        # Several processes may open a new store at once: one creates the tables, the others wait for it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        schema.metadata.create_all(connection)
        if connection.execute(select(schema.meta.c.schema_version)).scalar() is None:
            connection.execute(insert(schema.meta).values(schema_version=schema.SCHEMA_VERSION))
    return schema.SCHEMA_VERSION
