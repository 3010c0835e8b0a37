from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from fedft.data.readers import load_records
from fedft.data.word_problems import BARE, NOISY, STORIES, generate, split_of
from fedft.errors import FedftError

ANSWERS: dict[str, Callable[[list[int]], int]] = {
    "age": lambda n: n[0] - n[1],
    "bakery": lambda n: n[0] - n[1],
    "bus": sum,
    "change": lambda n: n[1] - n[0],
    "library": sum,
    "orchard": sum,
    "race": max,
    "shop": min,
}
ROWS = [{"text": "warm – and “dry”", "label": "1"}, {"text": "a\tb", "label": "0"}]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def code_of(source: str, **options: object) -> tuple[str, str]:
    with pytest.raises(FedftError) as caught:
        load_records(source, **options)  # type: ignore[arg-type]
    return caught.value.code, caught.value.message


def test_jsonl_keeps_types_and_skips_blank_lines(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", '{"a": 1, "b": ["x"]}\n\n{"a": null}\n')
    assert list(load_records(source)) == [{"a": 1, "b": ["x"]}, {"a": None}]


def test_jsonl_errors_name_the_line(tmp_path: Path) -> None:
    code, message = code_of(write(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": \n'))
    assert code == "FEDFT-3003"
    assert message.startswith("line 3 of ")
    code, message = code_of(write(tmp_path / "b.jsonl", "[1, 2]\n"))
    assert code == "FEDFT-3003"
    assert "list" in message


def test_csv_with_header_and_quotes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree",1\n')
    assert list(load_records(source)) == [{"text": 'one, "two"\nthree', "label": "1"}]


def test_csv_without_header_takes_the_configured_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "x,1\ny,0\n")
    assert list(load_records(source, columns=("text", "label")))[1] == {"text": "y", "label": "0"}


def test_csv_row_with_another_number_of_cells_is_refused(tmp_path: Path) -> None:
    code, message = code_of(write(tmp_path / "a.csv", "text,label\nx,1\ny\n"))
    assert code == "FEDFT-3003"
    assert message.startswith("line 3 of ")


def test_csv_with_an_open_quote_is_refused(tmp_path: Path) -> None:
    assert code_of(write(tmp_path / "a.csv", 'text,label\n"x,1\n'))[0] == "FEDFT-3003"


def test_a_header_with_repeated_names_is_refused(tmp_path: Path) -> None:
    assert code_of(write(tmp_path / "a.tsv", "1\t1\n2\t2\n"))[0] == "FEDFT-3003"


def test_tsv_takes_quotation_marks_as_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "a.tsv", 'sentence\tlabel\n"oh" he said "\t1\n')
    assert list(load_records(source)) == [{"sentence": '"oh" he said "', "label": "1"}]


def test_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(load_records(str(tmp_path / "a.parquet"))) == ROWS
    assert code_of(write(tmp_path / "b.parquet", "no"))[0] == "FEDFT-3003"


def test_arrow_folder_and_the_split_of_a_dataset_dict(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    assert list(load_records(str(tmp_path / "one"))) == ROWS
    pair = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])})
    pair.save_to_disk(str(tmp_path / "two"))
    assert list(load_records(str(tmp_path / "two"), split="test")) == ROWS[:1]
    assert code_of(str(tmp_path / "two"), split="public")[0] == "FEDFT-3001"
    assert code_of(str(tmp_path), format="arrow")[0] == "FEDFT-3001"


def test_a_glob_and_a_folder_keep_the_files_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path / f"{name}.jsonl", json.dumps({"from": name}) + "\n")
    for source in (str(tmp_path / "*.jsonl"), str(tmp_path)):
        records = load_records(source)
        assert [Path(origin).name for origin in records.origins] == ["a.jsonl", "b.jsonl"]
        assert [row["from"] for row in records] == ["a", "b"]


def test_the_format_may_be_named(tmp_path: Path) -> None:
    source = write(tmp_path / "data.txt", '{"a": 1}\n')
    assert code_of(source)[0] == "FEDFT-3002"
    assert load_records(source, format="jsonl")[0] == {"a": 1}


@pytest.mark.parametrize("source", ["missing.jsonl", "./missing", "/missing/folder", "none-*.csv", "a/b/c"])
def test_what_is_not_there_is_an_error(source: str) -> None:
    assert code_of(source)[0] == "FEDFT-3001"


def test_no_records_is_an_error(tmp_path: Path) -> None:
    assert code_of(write(tmp_path / "a.jsonl", "\n"))[0] == "FEDFT-3004"


def test_columns_for_a_format_with_names_is_an_error(tmp_path: Path) -> None:
    assert code_of(write(tmp_path / "a.jsonl", "{}\n"), columns=("a",))[0] == "FEDFT-3007"


def test_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\ncaf\xe9\n")
    code, message = code_of(str(tmp_path / "a.csv"))
    assert code == "FEDFT-3003"
    assert "0xe9" in message


def test_a_hub_id_goes_to_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, split: str) -> Dataset:
        asked.append((name, config, split))
        if name == "nobody/nothing":
            raise ConnectionError("no network")
        return Dataset.from_list(ROWS)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    records = load_records("owner/name:main", split="test")
    load_records("owner/name@validation")
    assert asked == [("owner/name", "main", "test"), ("owner/name", None, "validation")]
    assert list(records) == ROWS
    assert code_of("nobody/nothing")[0] == "FEDFT-3006"


def test_datasets_loads_a_local_folder_as_it_would_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ``datasets.load_dataset``, on a folder that looks like a downloaded repository."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo" / "train.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    from fedft.data import readers

    monkeypatch.chdir(tmp_path)
    assert list(readers._read_hub("repo", "train")) == ROWS


def test_a_missing_field_names_the_record(tmp_path: Path) -> None:
    records = load_records(write(tmp_path / "a.jsonl", '{"a": 1}\n{"b": 1}\n'))
    with pytest.raises(FedftError, match=r"FEDFT-3005 record 2 of .* has no field 'a'; it has 'b'"):
        records.require("a")


def test_a_limited_sample_is_seeded_and_in_order(tmp_path: Path) -> None:
    records = load_records(write(tmp_path / "a.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(100))))
    first, again, other = records.sample(10, 1), records.sample(10, 1), records.sample(10, 2)
    numbers = [row["n"] for row in first]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 10
    assert list(first) == list(again)
    assert list(first) != list(other)
    assert records.sample(0, 1) is records


def test_demo_problems_are_right_and_no_test_problem_is_trained_on() -> None:
    train, test, public = (load_records("demo", split=split) for split in ("train", "test", "public"))
    prompts = [{row["prompt"] for row in part} for part in (train, test, public)]
    assert not prompts[0] & prompts[1]
    assert not prompts[0] & prompts[2]
    assert not prompts[1] & prompts[2]
    assert {row["family"] for row in test} == set(STORIES)
    assert not set(STORIES) & {*BARE, *NOISY}
    for row in test:
        numbers = [int(digits) for digits in re.findall(r"\d+", row["prompt"])]
        assert int(row["completion"]) == ANSWERS[row["family"]](numbers)
    assert list(load_records("demo", split="test", seed=1)) != list(test)
    assert all(split_of(row["prompt"]) == "test" for row in test)


OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "plus": sum,
    "max": max,
    "min": min,
    "minus": lambda numbers: max(numbers) - min(numbers),
}


def test_what_the_model_was_trained_on_is_right_too() -> None:
    records = generate({**BARE, **NOISY}, "train", 20, 3)
    assert {row["family"] for row in records} == {*BARE, *NOISY}
    for row in records:
        numbers = [int(digits) for digits in re.findall(r"\d+", row["prompt"])]
        operation = row["family"].removeprefix("noisy ")
        assert int(row["completion"]) == OPERATIONS[operation](numbers)


@pytest.mark.data
def test_real_sst2_and_gsm8k(data_dir: Path) -> None:
    sst2 = load_records(str(data_dir / "sst2" / "train.tsv"), columns=("text", "label"))
    assert len(sst2) == 6920
    assert {row["label"] for row in sst2} == {"0", "1"}
    gsm8k = load_records(str(data_dir / "gsm8k" / "train.jsonl"))
    assert len(gsm8k) == 7473
    assert all("####" in row["answer"] for row in gsm8k)
