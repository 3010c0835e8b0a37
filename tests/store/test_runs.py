from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy

from fedft.errors import FedftError
from fedft.store import Delivery, EvaluationRecord, RoundRecord, RunStore
from fedft.store.migrations import RUN_STORE
from tests.store.build import add_run, digest, evaluations, state, store_with_run, training_round


def code_of(error: pytest.ExceptionInfo[FedftError]) -> str:
    return error.value.code


def test_a_round_comes_back_as_it_was_committed(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=2)

    rounds = RunStore(tmp_path).rounds(run.id)

    assert [record.round for record in rounds] == [0, 1, 2]
    expected = training_round(2)
    assert rounds[2].updates == expected.updates
    assert rounds[2].evaluations == expected.evaluations
    assert (rounds[2].phases, rounds[2].seconds) == (expected.phases, expected.seconds)
    assert rounds[2].committed_at
    np.testing.assert_array_equal(store.state(run.id, 2)["layer.R"], state(2)["layer.R"])


def test_rounds_are_taken_back_and_others_of_the_store_are_not(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=4)
    other = add_run(store, rounds=3)
    store.update_run(run.id, status="completed", final_digest="f" * 64)

    back = store.roll_back(run.id, 2)

    assert (back.status, back.final_digest, back.rounds) == ("interrupted", "", 2)
    assert store.rounds(run.id) == store.rounds(run.id)[:3]
    assert store.run(other.id).rounds == 3
    assert store.events(run.id)[-1]["message"] == "from round 4 to round 2"
    store.commit_round(run.id, training_round(3), state(3))
    assert store.last_round(run.id) == 3


@pytest.mark.parametrize("number", [5, 3], ids=["never committed", "state pruned"])
def test_only_a_round_that_is_whole_can_be_gone_back_to(tmp_path: Path, number: int) -> None:
    store, run = store_with_run(tmp_path, rounds=4)
    if number == 3:
        store.state_path(digest(3)).unlink()
    with pytest.raises(FedftError) as refused:
        store.roll_back(run.id, number)
    assert code_of(refused) == ("FEDFT-6003" if number == 5 else "FEDFT-6005")
    assert store.last_round(run.id) == 4


def test_a_run_that_goes_on_is_not_taken_back(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=2)
    with store.lock(run.id), pytest.raises(FedftError) as refused:
        store.roll_back(run.id, 1)
    assert code_of(refused) == "FEDFT-6007"


def test_metrics_that_are_not_finite_come_back(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=0)
    record = EvaluationRecord("central", "", 1, {"loss": math.nan, "perplexity": math.inf})

    store.commit_round(run.id, RoundRecord(1, digest(1), evaluations=(record,)), state(1))

    metrics = store.rounds(run.id)[-1].evaluations[0].metrics
    assert math.isnan(metrics["loss"])
    assert metrics["perplexity"] == math.inf


def test_a_round_commits_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)
    twice = (*training_round(2).updates, training_round(2).updates[0])

    with pytest.raises(Exception, match="UNIQUE"):
        store.commit_round(run.id, RoundRecord(2, digest(2), updates=twice), state(2))

    assert store.last_round(run.id) == 1
    assert {update.client for update in store.rounds(run.id)[-1].updates} == {
        "client-0",
        "client-1",
        "client-2",
    }
    store.commit_round(run.id, training_round(2), state(2))
    assert store.last_round(run.id) == 2


def test_a_round_is_committed_once(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)

    with pytest.raises(Exception, match="UNIQUE"):
        store.commit_round(run.id, training_round(1), state(1))


def test_rounds_count_from_the_last_commit(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=3)
    new = store.create_run("new", "{}")

    assert store.run(run.id).rounds == 3
    assert store.last_round(new.id) is None
    assert store.run(new.id).rounds == 0


def test_a_run_is_found_by_id_beginning_and_latest(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    runs = [store.create_run(name, "{}") for name in ("b", "a", "c", "a-second", "b-second")]

    assert store.run(runs[0].id) == runs[0]
    assert store.run("c").id == runs[2].id
    assert store.run("latest").id == runs[-1].id
    assert [run.id for run in store.runs()] == [run.id for run in runs]
    with pytest.raises(FedftError, match="several") as error:
        store.run("a")
    assert code_of(error) == "FEDFT-6002"
    with pytest.raises(FedftError, match="not a run") as error:
        store.run("nothing")
    assert code_of(error) == "FEDFT-6002"
    assert runs[-1].id in error.value.hint


def test_latest_of_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FedftError, match="latest") as error:
        RunStore(tmp_path).run("latest")
    assert code_of(error) == "FEDFT-6002"


def test_status_and_error_are_kept(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)

    store.set_status(run.id, "failed", "FEDFT-6102 too few")

    kept = RunStore(tmp_path).run(run.id)
    assert (kept.status, kept.error) == ("failed", "FEDFT-6102 too few")


def test_deliveries_are_remembered_per_client_and_setup(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=0)

    store.commit_round(
        run.id, training_round(1), state(1), deliveries=[Delivery("a", "s1"), Delivery("b", "s1")]
    )
    store.commit_round(run.id, training_round(2), state(2), deliveries=[Delivery("a", "s2")])

    assert store.deliveries(run.id) == {("a", "s1"), ("b", "s1"), ("a", "s2")}


def test_put_evaluations_replaces_the_same_scope_and_group(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)

    store.put_evaluations(run.id, 1, evaluations(0.5, "pooled"))
    store.put_evaluations(run.id, 1, evaluations(0.75, "pooled"))

    kept = store.rounds(run.id)[1].evaluations
    assert {item.metrics["exact_match"] for item in kept if item.scope == "pooled"} == {0.75}
    assert {item.metrics["exact_match"] for item in kept if item.scope == "central"} == {0.375}


def test_a_missing_round_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)

    with pytest.raises(FedftError) as error:
        store.state(run.id, 7)
    assert code_of(error) == "FEDFT-6003"
    store.state_path(digest(1)).unlink()
    with pytest.raises(FedftError) as error:
        store.state(run.id, 1)
    assert code_of(error) == "FEDFT-6005"


def test_a_damaged_state_is_an_error(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)
    path = store.state_path(digest(1))
    path.write_bytes(path.read_bytes()[:-3])

    with pytest.raises(FedftError) as error:
        store.state(run.id, 1)
    assert code_of(error) == "FEDFT-6005"


def test_pruning_keeps_the_last_states_and_those_of_other_runs(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=4)
    other = add_run(store, rounds=1, name="other")

    store.prune_states(run.id, 2)

    left = {path.stem for path in (tmp_path / "states").iterdir()}
    assert left == {digest(number) for number in (0, 1, 3, 4)}
    store.state(other.id, 1)


def test_a_residual_is_kept_beside_the_state_and_pruned_with_it(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=0)
    for number in (1, 2):
        record = RoundRecord(number, digest(number), residual_digest=digest(-number))
        store.commit_round(run.id, record, state(number), residual=state(-number))

    store.prune_states(run.id, 1)

    kept = store.residual(run.id, 2)
    assert kept is not None
    np.testing.assert_array_equal(kept["layer.R"], state(-2)["layer.R"])
    assert {path.stem for path in (tmp_path / "states").iterdir()} == {digest(0), digest(2), digest(-2)}


def test_a_round_without_a_codec_has_no_residual(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)

    assert store.residual(run.id, 1) is None


def test_frames_are_kept_under_their_digest(tmp_path: Path) -> None:
    store = RunStore(tmp_path)

    store.write_frame("f1", b"bytes")

    assert store.read_frame("f1") == b"bytes"
    with pytest.raises(FedftError) as error:
        store.read_frame("f2")
    assert code_of(error) == "FEDFT-6005"


def test_events_keep_their_order(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)

    for number in range(5):
        store.add_event(run.id, "note", f"{number}")

    assert [event["message"] for event in store.events(run.id)] == ["0", "1", "2", "3", "4"]


def test_a_store_that_is_not_there_is_not_made_when_only_read(tmp_path: Path) -> None:
    with pytest.raises(FedftError) as error:
        RunStore(tmp_path / "none", create=False)
    assert code_of(error) == "FEDFT-6001"
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fedft.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)

    with pytest.raises(FedftError) as error:
        RunStore(tmp_path)
    assert code_of(error) == "FEDFT-6006"
    assert path.read_bytes().startswith(b"not a database")


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "fedft.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(FedftError, match="99") as error:
        RunStore(tmp_path)
    assert code_of(error) == "FEDFT-6006"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(FedftError) as error:
        RunStore(tmp_path / "file" / "store")
    assert code_of(error) == "FEDFT-6004"


def test_a_full_disk_is_an_error_with_a_code_and_leaves_the_last_round(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)

    @sqlalchemy.event.listens_for(store._engine, "begin")
    def _no_more_pages(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    with pytest.raises(FedftError, match="full") as error:
        store.set_status(run.id, "failed", "x" * 1_000_000)

    assert code_of(error) == "FEDFT-6004"
    kept = RunStore(tmp_path).run(run.id)
    assert (kept.status, kept.rounds) == ("completed", 1)


@pytest.mark.parametrize("name", ["a?b", "50% off", "a#b", "ünï", "with space"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    store, run = store_with_run(tmp_path / name)

    assert (tmp_path / name / "fedft.sqlite").exists()
    assert RunStore(tmp_path / name, create=False).run(run.id).rounds == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    store.close()


def test_many_threads_may_write(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)

    def ten_events() -> None:
        for _ in range(10):
            store.add_event(run.id, "note", "")

    threads = [threading.Thread(target=ten_events) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store.events(run.id)) == 40


def test_many_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    script = "import sys; from fedft.store import RunStore; RunStore(sys.argv[1]).create_run('x', '{}')"
    folder = tmp_path / "new"

    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(folder)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    errors = [process.communicate()[1].decode() for process in processes]

    assert errors == [""] * 4
    assert len(RunStore(folder).runs()) == 4
    with sqlite3.connect(folder / "fedft.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (RUN_STORE.version,)


def test_a_run_is_locked_against_a_second_process_and_freed_by_its_end(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)
    script = (
        "import sys, time; from fedft.store import RunStore\n"
        "with RunStore(sys.argv[1]).lock(sys.argv[2]): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), run.id], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()

    with pytest.raises(FedftError) as error, store.lock(run.id):
        pass
    holder.kill()
    holder.wait()

    assert code_of(error) == "FEDFT-6007"
    with store.lock(run.id):
        pass


_COMMITTER = """
import sys
from fedft.store import RunStore
from tests.store.build import state, training_round
store = RunStore(sys.argv[1])
run = store.run("latest").id
for number in range(store.last_round(run) + 1, 10**6):
    store.commit_round(run, training_round(number), state(number))
    print(number, flush=True)
"""


def test_a_killed_process_leaves_whole_rounds(tmp_path: Path) -> None:
    _, run = store_with_run(tmp_path, rounds=0)
    reported = 0
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMITTER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        reported = int(process.stdout.readline())
        time.sleep(0.05 + 0.013 * attempt)
        process.kill()
        rest, _ = process.communicate()
        reported = max([reported, *(int(line) for line in rest.split("\n")[:-1])])

        store = RunStore(tmp_path)
        rounds = store.rounds(run.id)

        assert [record.round for record in rounds] == list(range(len(rounds)))
        assert len(rounds) - 1 in (reported, reported + 1)
        assert all(len(record.updates) == len(record.evaluations) == 3 for record in rounds)
        for record in rounds:
            np.testing.assert_array_equal(
                store.state(run.id, record.round)["layer.R"], state(record.round)["layer.R"]
            )
        store.close()
    assert reported > 4


def test_a_run_says_how_many_rounds_it_is_to_have(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    add_run(store, rounds=2)
    store.create_run("bare", "{}")

    assert [(run.rounds, run.total_rounds) for run in store.runs()] == [(2, 2), (0, 0)]
