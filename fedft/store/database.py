"""Opening the database of a run store, and creating it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from fedft.sqlite import open_sqlite
from fedft.store.migrations import RUN_STORE


def open_database(path: Path) -> Engine:
    """Open or create a database whose commits survive a crash of the machine.

    Raises:
        FedftError: FEDFT-6004 when it cannot be opened or written, FEDFT-6006 when it is no run store or
            one of a later version.

    """
    open_sqlite(path, RUN_STORE).close()  # brought to this version before anything is read
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine
