import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedft import clock
from fedft.errors import FedftError
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.site.ledger import Ledger, fingerprint, verify_export
from fedft.statements import LedgerWitness
from fedft.store import hash_chain as chain_module

DATA = fingerprint([b"one", b"two"])
EVENT = PrivacyEvent(2.0, 0.1, 5)
WIDE = Budget(50.0, 1e-5)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "ledger.sqlite"
    Ledger.create(place).enrol("notes", DATA, 1000)
    return place


def _charge(
    ledger: Ledger,
    event: PrivacyEvent = EVENT,
    budget: Budget = WIDE,
    run: str = "r1",
    release: str = "train",
) -> int:
    return ledger.charge("notes", event, budget, run=run, round_number=3, release=release).entry.sequence


def _refused(action: Callable[[], object]) -> str:
    with pytest.raises(FedftError) as caught:
        action()
    return caught.value.code


def test_charges_add_up_across_reopening(path: Path) -> None:
    _charge(Ledger(path))
    _charge(Ledger(path))

    reopened = Ledger(path)
    assert reopened.events("notes") == [PrivacyEvent(2.0, 0.1, 10)]
    assert reopened.claim("notes", 1e-5).epsilon == pytest.approx(
        pld_epsilon([PrivacyEvent(2.0, 0.1, 10)], 1e-5)
    )


def test_a_receipt_names_the_entry_and_the_spending(path: Path) -> None:
    receipt = Ledger(path).charge("notes", EVENT, WIDE, run="r1", round_number=3)

    last = Ledger(path).entries()[-1]
    assert receipt.witness == receipt.entry == LedgerWitness(last.sequence, last.digest)
    assert last.body["event"] == EVENT.as_dict()
    assert (last.body["run"], last.body["round"], last.body["dataset"]) == ("r1", 3, "notes")
    assert receipt.claim.epsilon == pytest.approx(pld_epsilon([EVENT], 1e-5), rel=0.01)


def test_a_ledger_that_was_put_back_with_its_head_lacks_what_others_have_seen(path: Path) -> None:
    files = (path, path.with_name(path.name + ".head"))
    _charge(Ledger(path))
    old = [file.read_bytes() for file in files]
    seen = Ledger(path).charge("notes", EVENT, WIDE, run="r1", round_number=4).witness
    assert seen is not None
    Ledger(path).require_entry(seen)
    for file, content in zip(files, old, strict=True):
        file.write_bytes(content)

    _charge(Ledger(path))  # by itself it cannot know, and charges another fourth entry
    assert _refused(lambda: Ledger(path).require_entry(seen)) == "FEDFT-8211"


def test_data_sets_are_accounted_for_separately(path: Path) -> None:
    ledger = Ledger(path)
    ledger.enrol("letters", "f" * 64, 10)
    _charge(ledger)

    assert ledger.datasets() == ["notes", "letters"]
    assert ledger.events("letters") == []


def test_an_exhausted_budget_refuses_and_writes_nothing(path: Path) -> None:
    ledger, budget = Ledger(path), Budget(1.5, 1e-5)
    taken = 0
    while pld_epsilon([PrivacyEvent(2.0, 0.1, 5 * taken + 5)], 1e-5) <= 1.5:
        _charge(ledger, budget=budget)
        taken += 1

    assert _refused(lambda: _charge(ledger, budget=budget)) == "FEDFT-8207"
    assert taken > 3
    assert ledger.events("notes")[0].steps == 5 * taken
    assert _refused(lambda: _charge(Ledger(path), budget=budget)) == "FEDFT-8207"


def test_the_budget_is_shared_by_objects_that_are_open_together(path: Path) -> None:
    one, other = Ledger(path), Ledger(path)
    budget = Budget(pld_epsilon([PrivacyEvent(2.0, 0.1, 10)], 1e-5) + 1e-6, 1e-5)
    _charge(one, budget=budget)
    _charge(other, budget=budget)

    assert _refused(lambda: _charge(one, budget=budget)) == "FEDFT-8207"


def test_delta_of_one_over_n_is_refused(path: Path) -> None:
    assert _refused(lambda: _charge(Ledger(path), budget=Budget(5.0, 1e-3))) == "FEDFT-8001"
    assert _refused(lambda: Ledger(path).claim("notes", 1e-3)) == "FEDFT-8001"


def test_another_fingerprint_is_refused(path: Path) -> None:
    ledger = Ledger(path)

    ledger.require("notes", DATA)
    assert _refused(lambda: ledger.require("notes", "0" * 64)) == "FEDFT-8206"
    assert _refused(lambda: ledger.enrol("notes", "0" * 64, 5)) == "FEDFT-8206"
    assert ledger.events("notes") == []


def test_records_that_are_enrolled_under_another_name_open_no_new_budget(path: Path) -> None:
    ledger = Ledger(path)
    _charge(ledger)
    ledger.enrol("letters", "b" * 64, 1000)

    for enrol in (ledger.enrol, Ledger(path).enrol):
        assert _refused(lambda enrol=enrol: enrol("copies", DATA, 1000)) == "FEDFT-8209"  # type: ignore[misc]
    assert _refused(lambda: ledger.rebind("letters", DATA, 1000)) == "FEDFT-8209"
    assert ledger.datasets() == ["notes", "letters"]


def test_within_a_run_every_round_costs_the_same(path: Path) -> None:
    ledger = Ledger(path)
    _charge(ledger)
    _charge(ledger, PrivacyEvent(3.0), release="sketch")

    for other in (PrivacyEvent(2.1, 0.1, 5), PrivacyEvent(2.0, 0.2, 5), PrivacyEvent(2.0, 0.1, 6)):
        assert _refused(lambda other=other: _charge(ledger, other)) == "FEDFT-8210"  # type: ignore[misc]
        assert _refused(lambda other=other: _charge(Ledger(path), other)) == "FEDFT-8210"  # type: ignore[misc]
        assert _refused(lambda other=other: _charge(ledger, other, release="sketch")) == "FEDFT-8210"  # type: ignore[misc]
    _charge(ledger)
    _charge(ledger, PrivacyEvent(2.1, 0.1, 5), run="r2")
    assert len(ledger.entries()) == 2 + 4


def test_digests_of_two_ledgers_on_the_same_data_have_nothing_in_common(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Ledger.create(tmp_path / "other" / "ledger.sqlite")
    other.enrol("notes", DATA, 1000)

    pairs = zip(Ledger(path).entries(), other.entries(), strict=True)
    assert all(one.digest != two.digest for one, two in pairs)


def test_an_unknown_data_set_is_refused(path: Path) -> None:
    ledger = Ledger(path)

    assert _refused(lambda: ledger.claim("other", 1e-5)) == "FEDFT-8205"
    assert _refused(lambda: ledger.rebind("other", DATA, 5)) == "FEDFT-8205"
    assert _refused(lambda: ledger.charge("other", EVENT, WIDE, run="r", round_number=1)) == "FEDFT-8205"


def test_enrolling_again_keeps_the_spending(path: Path) -> None:
    ledger, stale = Ledger(path), Ledger(path)
    _charge(ledger)
    stale.enrol("notes", DATA, 1000)

    assert len(ledger.entries()) == 3
    assert stale.events("notes") == [EVENT]


def test_rebinding_keeps_the_spending(path: Path) -> None:
    ledger = Ledger(path)
    _charge(ledger)
    ledger.rebind("notes", "a" * 64, 1001)

    assert _refused(lambda: ledger.require("notes", DATA)) == "FEDFT-8206"
    ledger.require("notes", "a" * 64)
    _charge(Ledger(path))
    assert Ledger(path).events("notes") == [PrivacyEvent(2.0, 0.1, 10)]


def test_a_missing_ledger_is_refused_and_not_made(tmp_path: Path) -> None:
    assert _refused(lambda: Ledger(tmp_path / "none.sqlite")) == "FEDFT-8201"
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_vanishes_is_refused(path: Path) -> None:
    ledger = Ledger(path)
    path.unlink()

    assert _refused(lambda: _charge(ledger)) == "FEDFT-8201"


@pytest.mark.parametrize("leftover", ["ledger.sqlite", "ledger.sqlite.head"])
def test_creating_over_a_ledger_is_refused(path: Path, leftover: str) -> None:
    for file in path.parent.iterdir():
        if file.name != leftover:
            file.unlink()

    assert _refused(lambda: Ledger.create(path)) == "FEDFT-8202"


def test_creating_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    assert _refused(lambda: Ledger.create(tmp_path / "no" / "ledger.sqlite")) == "FEDFT-8208"


def _edit(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TRIGGER no_update")
        database.execute("DROP TRIGGER no_delete")
        for statement in statements:
            database.execute(statement)
    database.close()


TAMPERING = {
    "body": ["UPDATE entries SET body = replace(body, '\"steps\":5', '\"steps\":1') WHERE sequence = 4"],
    "digest": ["UPDATE entries SET digest = zeroblob(32) WHERE sequence = 4"],
    "middle removed": ["DELETE FROM entries WHERE sequence = 4"],
    "swapped": [
        "UPDATE entries SET sequence = 99 WHERE sequence = 3",
        "UPDATE entries SET sequence = 3 WHERE sequence = 4",
        "UPDATE entries SET sequence = 4 WHERE sequence = 99",
    ],
    "renumbered": ["UPDATE entries SET sequence = 9 WHERE sequence = 5"],
    "added": ['INSERT INTO entries VALUES (7, \'{"kind":"x"}\', zeroblob(32))'],
}


@pytest.mark.parametrize("statements", TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_refused(path: Path, statements: list[str]) -> None:
    ledger = Ledger(path)
    for steps in (4, 5, 6):
        _charge(ledger, PrivacyEvent(2.0, 0.1, steps), run=f"r{steps}")
    _edit(path, *statements)

    assert _refused(lambda: Ledger(path)) == "FEDFT-8203"


def test_the_untampered_control_opens(path: Path) -> None:
    _charge(Ledger(path))
    _edit(path)

    Ledger(path)


@pytest.mark.parametrize("keep", [0, 2, 3])
def test_a_cut_tail_is_refused(path: Path, keep: int) -> None:
    ledger = Ledger(path)
    _charge(ledger)
    _charge(ledger)
    _edit(path, f"DELETE FROM entries WHERE sequence > {keep}")

    assert _refused(lambda: Ledger(path)) == "FEDFT-8204"
    assert _refused(lambda: _charge(ledger)) == "FEDFT-8204"


def test_an_older_copy_is_refused(path: Path) -> None:
    old = path.read_bytes()
    _charge(Ledger(path))
    path.write_bytes(old)

    assert _refused(lambda: Ledger(path)) == "FEDFT-8204"


def test_a_missing_head_file_is_refused(path: Path) -> None:
    path.with_name("ledger.sqlite.head").unlink()

    assert _refused(lambda: Ledger(path)) == "FEDFT-8204"


def test_a_torn_head_line_is_survived_and_the_next_one_counts(path: Path) -> None:
    head = path.with_name("ledger.sqlite.head")
    with head.open("ab") as file:
        file.write(b"\n4 abc")
    _charge(Ledger(path))
    _edit(path, "DELETE FROM entries WHERE sequence = 3")

    assert _refused(lambda: Ledger(path)) == "FEDFT-8204"


def test_a_head_that_a_crash_left_behind_catches_up(path: Path) -> None:
    head = path.with_name("ledger.sqlite.head")
    before = head.read_bytes()
    _charge(Ledger(path))
    head.write_bytes(before)
    Ledger(path)
    _edit(path, "DELETE FROM entries WHERE sequence = 3")

    assert _refused(lambda: Ledger(path)) == "FEDFT-8204"


def test_rows_cannot_be_changed_by_ordinary_statements(path: Path) -> None:
    with sqlite3.connect(path) as database:
        for statement in ("UPDATE entries SET body = ''", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
    database.close()


def test_garbage_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)

    assert _refused(lambda: Ledger(path)) == "FEDFT-8203"


def test_an_entry_of_an_unknown_kind_is_refused(path: Path) -> None:
    chain = chain_module.HashChain(path)
    chain.read()
    chain.append(lambda _: {"kind": "refund", "dataset": "notes"})

    assert _refused(lambda: Ledger(path)) == "FEDFT-8203"


def test_a_second_enrolment_entry_cannot_clear_the_spending(path: Path) -> None:
    chain = chain_module.HashChain(path)
    chain.read()
    chain.append(lambda _: {"kind": "dataset", "dataset": "notes", "fingerprint": DATA, "examples": 9})

    assert _refused(lambda: Ledger(path)) == "FEDFT-8203"


def test_a_locked_ledger_refuses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedft.sqlite._LOCK_SECONDS", 0.05)
    ledger = Ledger(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    assert _refused(lambda: _charge(ledger)) == "FEDFT-8208"
    holder.close()


def test_no_receipt_when_the_head_cannot_be_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, real = Ledger(path), os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert _refused(lambda: _charge(ledger)) == "FEDFT-8208"
    monkeypatch.setattr(os, "fsync", real)
    assert Ledger(path).events("notes") == [EVENT]


def test_commits_are_synced_before_the_receipt(path: Path) -> None:
    with chain_module.HashChain(path)._connection() as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_the_clock_plays_no_part(path: Path) -> None:
    sequences = []
    for year in (2033, 1970, 2001):
        with clock.use(clock.ManualClock(datetime(year, 1, 1, tzinfo=UTC))):
            sequences.append(_charge(Ledger(path)))

    assert sequences == [3, 4, 5]
    assert Ledger(path).events("notes") == [PrivacyEvent(2.0, 0.1, 15)]


def test_an_export_verifies_and_a_changed_one_does_not(path: Path) -> None:
    _charge(Ledger(path))
    exported = Ledger(path).export()
    assert verify_export(exported) == 3

    short = {**exported, "entries": exported["entries"][:-1]}
    assert _refused(lambda: verify_export(short)) == "FEDFT-8203"
    last = exported["entries"][2]
    relabelled = {**exported, "entries": [*exported["entries"][:2], {**last, "digest": "0" * 64}]}
    assert _refused(lambda: verify_export(relabelled)) == "FEDFT-8203"
    last["body"]["event"]["steps"] = 1
    assert _refused(lambda: verify_export(exported)) == "FEDFT-8203"


def test_the_fingerprint_is_of_the_multiset() -> None:
    assert fingerprint([b"a", b"b"]) == fingerprint([b"b", b"a"])
    assert len({fingerprint(r) for r in ([b"a"], [b"a", b"a"], [b"ab"], [b"a", b"b"], [])}) == 5


def _spend(path: Path, budget: Budget) -> None:
    ledger = Ledger(path)
    for _ in range(8):
        try:
            _charge(ledger, budget=budget)
        except FedftError as error:
            assert error.code == "FEDFT-8207"  # noqa: PT017
            os._exit(7)
    os._exit(0)


def test_concurrent_runs_never_overspend(path: Path) -> None:
    budget = Budget(pld_epsilon([PrivacyEvent(2.0, 0.1, 50)], 1e-5) + 1e-6, 1e-5)
    children = [FORK.Process(target=_spend, args=(path, budget)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    assert Ledger(path).events("notes") == [PrivacyEvent(2.0, 0.1, 50)]
    codes = [child.exitcode for child in children if child.exitcode is not None]
    assert len(codes) == len(children)
    assert max(codes) == 7


def _charge_and_release(path: Path, released: Path) -> None:
    ledger = Ledger(path)
    out = os.open(released, os.O_WRONLY | os.O_APPEND)
    while True:
        sequence = _charge(ledger, PrivacyEvent(50.0, 1.0, 1), WIDE)
        os.write(out, b"%d\n" % sequence)


def test_kill_minus_nine_never_loses_a_charge(path: Path, tmp_path: Path) -> None:
    released = tmp_path / "released"
    released.touch()
    rng, kills = random.Random(1), 0
    while kills < 200:
        children = [FORK.Process(target=_charge_and_release, args=(path, released)) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            time.sleep(rng.uniform(0.0, 0.03))
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        for child in children:
            child.join()
        out = [int(line) for line in released.read_text().split()]
        charged = {entry.sequence for entry in Ledger(path).entries() if entry.body["kind"] == "charge"}
        assert len(set(out)) == len(out)
        assert charged.issuperset(out)

    assert len(out) > 50
    assert Ledger(path).events("notes")[0].steps == len(charged)
