from __future__ import annotations

from pathlib import Path

import pytest

from fedft.store import RunStore
from tests.cli.run import fedft, output_json, words
from tests.store.build import add_run, digest, evaluations, store_with_run


def test_list_shows_every_run_with_status_and_rounds(tmp_path: Path) -> None:
    store, first = store_with_run(tmp_path, rounds=2)
    second = add_run(store, rounds=1, name="other", finished=False)

    lines = fedft("runs", "list", "--store", tmp_path).stdout.splitlines()

    assert words(lines[2]).startswith(f"{first.id} completed 2/2")
    assert digest(2)[:12] in lines[2]
    assert words(lines[3]).startswith(f"{second.id} created 1/1")


def test_list_for_scripts_and_from_the_environment(tmp_path: Path) -> None:
    _, run = store_with_run(tmp_path)

    (found,) = output_json(fedft("runs", "list", "--json", FEDFT_STORE=str(tmp_path)))["runs"]

    assert (found["id"], found["status"], found["rounds"]) == (run.id, "completed", 2)
    assert found["total_rounds"] == 2


def test_list_of_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    RunStore(tmp_path)

    assert "fedft demo" in fedft("runs", "list", "--store", tmp_path).stdout


def test_show_has_quality_clients_bytes_time_and_refusals(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=2)
    store.add_event(run.id, "resumed", "after round 1")

    text = words(fedft("runs", "show", run.id, "--store", tmp_path).stdout)

    assert "round exact match loss accepted other up down setup" in text
    assert "0 12.5 % 1.875 3/3 150 B – 15.0 kB" in text
    assert "2 62.5 % 1.375 1/3 1 refused, 1 failed 2.00 kB 3.30 kB –" in text
    assert "age 20 12.5 % 62.5 % +50.0 points" in text
    assert "2 5.00 s 4.00 s 1.00 s" in text
    assert "refused FEDFT-5016 norm 12000 is over 10000 client-1 in 1, client-1 in 2" in text
    assert "resumed after round 1" in text
    assert digest(2) in text


def test_show_has_the_comparison(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)
    store.put_evaluations(run.id, 2, evaluations(0.75, "pooled"))

    text = words(fedft("runs", "show", "--store", tmp_path).stdout)

    assert "central, on pooled data 75.0 % 75.0 % 75.0 %" in text


def test_show_for_scripts(tmp_path: Path) -> None:
    _, run = store_with_run(tmp_path)

    values = output_json(fedft("runs", "show", "latest", "--store", tmp_path, "--json"))

    assert values["id"] == run.id
    assert values["headline_metric"] == "exact_match"
    assert values["quality"][0] == {"group": "", "num_examples": 40, "before": 0.125, "after": 0.625}
    assert values["bytes"]["setup"] == 15000
    assert [item["round"] for item in values["committed"]] == [0, 1, 2]
    assert values["committed"][2]["updates"][1]["code"] == "FEDFT-5016"


def test_show_of_a_run_without_rounds_and_of_a_failed_one(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)
    empty = store.create_run("empty", run.config)
    store.set_status(empty.id, "failed", "FEDFT-6102 too few updates")

    text = words(fedft("runs", "show", "empty", "--store", tmp_path).stdout)

    assert "FEDFT-6102 too few updates" in text
    assert "no round is committed yet" in text


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    store_with_run(tmp_path)

    result = fedft("runs", "show", "nope", "--store", tmp_path)

    assert result.exit_code == 1
    assert "FEDFT-6002" in result.stderr


@pytest.mark.parametrize("chosen", [True, False])
def test_report_writes_the_page_and_says_where(tmp_path: Path, chosen: bool) -> None:
    store, run = store_with_run(tmp_path / "store")
    path = tmp_path / "my.html" if chosen else tmp_path / "store" / "reports" / f"{run.id}.html"

    result = fedft("report", "--store", store.folder, *(("-o", path) if chosen else ()))

    assert str(path) in result.stdout
    assert run.id in path.read_text(encoding="utf-8")


def test_report_for_scripts(tmp_path: Path) -> None:
    _, run = store_with_run(tmp_path)

    values = output_json(fedft("report", "latest", "--store", tmp_path, "--json"))

    assert values["run"] == run.id
    assert Path(values["path"]).exists()
