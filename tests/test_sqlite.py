"""Every SQLite file of ours is opened in one way, whatever version wrote it.

``store/versions`` holds files as earlier versions wrote them, as SQL text.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedft.client.worker.reply_journal import SCHEMA as JOURNAL
from fedft.client.worker.secagg_journal import SCHEMA as SECAGG_JOURNAL
from fedft.errors import Code, FedftError
from fedft.identity.registry import SCHEMA as REGISTRY
from fedft.identity.registry import Registry
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.site.ledger import Ledger
from fedft.sqlite import Schema, open_sqlite, transaction
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.store import RunStore, schema
from fedft.store.hash_chain import NEW as CHAIN
from fedft.store.migrations import RUN_STORE

VERSIONS = Path(__file__).parent / "store" / "versions"
SCHEMAS = {
    "run_store": RUN_STORE,
    "registry": REGISTRY,
    "journal": JOURNAL,
    "chain": CHAIN,
    "secagg_journal": SECAGG_JOURNAL,
}


def written_by(version: str, path: Path) -> Path:
    with sqlite3.connect(path) as connection:
        connection.executescript((VERSIONS / f"{version}.sql").read_text())
    connection.close()
    return path


def layout(connection: sqlite3.Connection) -> dict[str, list[tuple[str, str, int, int]]]:
    """Columns of every table: name, type, whether it may be null, its place in the primary key."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table: sorted(row[1:4] + row[5:6] for row in connection.execute(f'PRAGMA table_info("{table}")'))
        for table in tables
    }


@pytest.mark.parametrize("version", sorted(path.stem for path in VERSIONS.glob("*.sql")))
def test_every_earlier_version_becomes_this_one(version: str, tmp_path: Path) -> None:
    kind = SCHEMAS[version.rpartition("_")[0]]
    old = open_sqlite(written_by(version, tmp_path / "old.sqlite"), kind)
    new = open_sqlite(tmp_path / "new.sqlite", kind)

    assert layout(old) == layout(new)
    for connection in (old, new):
        assert connection.execute("PRAGMA user_version").fetchone() == (kind.version,)
        connection.close()


def test_every_version_but_the_present_one_has_a_file() -> None:
    found = {path.stem for path in VERSIONS.glob("*.sql")}
    numbered = {f"{name}_{version}" for name, kind in SCHEMAS.items() for version in range(1, kind.version)}
    assert found >= numbered


@pytest.mark.parametrize("version", ["run_store_1", "run_store_2"])
def test_a_run_of_an_earlier_version_is_there_as_it_was(version: str, tmp_path: Path) -> None:
    written_by(version, tmp_path / "fedft.sqlite")

    store = RunStore(tmp_path, create=False)
    (run,) = store.runs()
    rounds = store.rounds(run.id)

    assert (run.name, run.rounds, [record.round for record in rounds]) == ("demo", 2, [0, 1, 2])
    assert [update.code for update in rounds[1].updates] == ["", "FEDFT-5016", ""]
    assert not any(record.privacy for record in rounds)
    store.add_event(run.id, "note", "written by this version")


def test_what_was_stated_in_an_earlier_version_is_a_statement_now(tmp_path: Path) -> None:
    written_by("run_store_3", tmp_path / "fedft.sqlite")

    store = RunStore(tmp_path, create=False)
    _, first, second = store.rounds(store.runs()[0].id)

    dp_sgd = PrivacyStatement(
        PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE, 1.25, 0.0, 0.25, 4, 2.5, 0.001, ""
    )
    assert [update.privacy for update in first.updates] == [dp_sgd, None, None]
    assert first.updates[0].metrics == {"steps": 4.0}
    gaussian = PrivacyStatement(
        PrivacyMechanism.GAUSSIAN, PrivacyUnit.CLIENT, 2.0, 0.1, 0.5, 1, 1.5, 0.001, ""
    )
    assert (second.privacy, second.next_max_norm) == (gaussian, 0.2)


def test_a_ledger_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    path = written_by("chain_1", tmp_path / "ledger.sqlite")
    (tmp_path / "ledger.sqlite.head").write_bytes((VERSIONS / "chain_1.head").read_bytes())

    ledger = Ledger(path)

    assert ledger.events("notes") == [PrivacyEvent(2.0, 0.1, 10)]
    receipt = ledger.charge("notes", PrivacyEvent(2.0, 0.1, 10), Budget(50.0, 1e-5), run="r2", round_number=1)
    assert receipt.witness is None  # nothing hides the records that its digests cover
    ledger.enrol("letters", "cd" * 32, 500)
    assert Ledger(path).datasets() == ["notes", "letters"]


def test_a_registry_of_an_earlier_version_knows_its_members(tmp_path: Path) -> None:
    registry = Registry(written_by("registry_1", tmp_path / "server.sqlite"))

    assert registry.member("hospital-a").role == "client"
    assert registry.wanted() == {"run-1": "paused"}
    assert [incident["code"] for incident in registry.incidents()] == ["FEDFT-7033"]


def test_the_tables_that_queries_see_are_those_of_the_file(tmp_path: Path) -> None:
    connection = open_sqlite(tmp_path / "store.sqlite", RUN_STORE)
    found = {table: {column[0] for column in columns} for table, columns in layout(connection).items()}
    connection.close()

    assert found == {table.name: set(table.columns.keys()) for table in schema.metadata.tables.values()}


@pytest.mark.parametrize("kind", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_a_file_of_a_later_version_is_refused_and_left_alone(kind: Schema, tmp_path: Path) -> None:
    path = tmp_path / "file.sqlite"
    open_sqlite(path, kind).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(FedftError, match="version 99") as error:
        open_sqlite(path, kind)
    assert error.value.code is kind.unknown
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.parametrize(
    "damage", [b"\xff" * 5000, b"SQLite format 3\0" + b"\xff" * 5000], ids=["all", "body"]
)
def test_a_damaged_file_is_an_error_with_a_code(kind: Schema, damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.sqlite"
    path.write_bytes(damage + b"\xff" * 5000)

    with pytest.raises(FedftError) as error:
        open_sqlite(path, kind)
    assert error.value.code in (kind.unknown, kind.unusable)


def test_a_migration_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    first = ("CREATE TABLE things (name TEXT)",)
    broken = ("ALTER TABLE things ADD COLUMN size INTEGER", "no SQL at all")
    one, two = (
        Schema("a test", migrations, Code.STORE_UNUSABLE, Code.STORE_FORMAT_UNKNOWN)
        for migrations in ((first,), (first, broken))
    )
    open_sqlite(tmp_path / "file.sqlite", one).close()

    with pytest.raises(FedftError):
        open_sqlite(tmp_path / "file.sqlite", two)

    connection = open_sqlite(tmp_path / "file.sqlite", one)
    assert [column[0] for column in layout(connection)["things"]] == ["name"]
    connection.close()


def test_several_threads_may_open_an_old_file_at_once(tmp_path: Path) -> None:
    path = written_by("run_store_1", tmp_path / "fedft.sqlite")
    errors: list[Exception] = []

    def opened() -> None:
        try:
            open_sqlite(path, RUN_STORE).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=opened) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors


@pytest.mark.parametrize("fails", [False, True])
def test_a_transaction_is_whole_or_nothing(fails: bool, tmp_path: Path) -> None:
    one = Schema("a test", (("CREATE TABLE t (x)",),), Code.STORE_UNUSABLE, Code.STORE_FORMAT_UNKNOWN)
    connection = open_sqlite(tmp_path / "file.sqlite", one)
    ends: Callable[[], None] = (lambda: (_ for _ in ()).throw(KeyError)) if fails else (lambda: None)

    try:
        with transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
            ends()
    except KeyError:
        pass

    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0 if fails else 1,)
    connection.close()
