from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.config import RunConfig, load, load_config, parse_overrides
from fedft.config.load import check, from_json, parse_value, to_json
from fedft.errors import FedftError

PRIVATE = {"mechanism": "example"}
CLIENT = {"mechanism": "client"}
OWN = {"train": "x", "test": "y", "public": "x"}
UNIFORM = {"weighting": "uniform"}
EXAMPLES = {"weighting": "examples"}


def mistakes_of(table: dict[str, object]) -> list[str]:
    with pytest.raises(FedftError) as error:
        check(table)
    assert error.value.code == "FEDFT-1003"
    return [line.strip() for line in error.value.message.splitlines()[1:]]


def test_an_empty_table_is_the_defaults() -> None:
    assert check({}) == RunConfig()


def test_the_bundled_demo_is_valid() -> None:
    config = load_config("demo", {"rounds.total": 3})

    assert config.rounds.total == 3
    assert config.data.fields.group == "family"
    assert config.evaluation.exact_match


def test_all_mistakes_are_reported_at_once_with_path_value_and_rule() -> None:
    found = mistakes_of(
        {
            "seed": -1,
            "model": {"sorce": "x", "dtype": "float16"},
            "task": 3,
            "adapter": {"rank": "many", "targets": ["q_proj", 7]},
            "rounds": {"deadline": math.inf, "cohort": 9, "speed": 1},
            "training": {"steps": 0, "epochs": 0, "batch_size": 4, "micro_batch_size": 8},
        }
    )

    by_path = dict(line.split(": ", 1) for line in found)
    assert by_path.keys() == {
        "seed",
        "model.sorce",
        "model.dtype",
        "task",
        "adapter.rank",
        "adapter.targets.1",
        "rounds.deadline",
        "rounds.speed",
        "rounds.cohort",
        "training.steps",
        "training.micro_batch_size",
    }
    assert by_path["seed"].endswith("greater than or equal to 0, got -1")
    assert "'float32' or 'bfloat16', got 'float16'" in by_path["model.dtype"]
    assert "did you mean source?" in by_path["model.sorce"]
    assert "'many'" in by_path["adapter.rank"]
    assert by_path["rounds.cohort"] == "9 is over data.partition.clients 4"
    assert "allowed here: total, cohort" in by_path["rounds.speed"]


def test_a_contradiction_with_a_value_that_is_itself_wrong_is_not_reported() -> None:
    found = mistakes_of({"data": {"partition": {"clients": 0}}, "rounds": {"cohort": 9}})

    assert [line.partition(":")[0] for line in found] == ["data.partition.clients"]


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"training": {"steps": 0, "epochs": 0}}, "training.steps"),
        ({"training": {"batch_size": 2, "micro_batch_size": 3}}, "training.micro_batch_size"),
        ({"rounds": {"cohort": 2, "min_replies": 3}}, "rounds.min_replies"),
        ({"rounds": {"min_replies": 5}}, "rounds.min_replies"),
        ({"rounds": {"min_clients": 5}}, "rounds.min_clients"),
        ({"rounds": {"cohort": 5}}, "rounds.cohort"),
        ({"task": {"kind": "sequence-classification", "labels": ["one"]}}, "task.labels"),
        ({"data": {"partition": {"kind": "field"}}}, "data.partition.field"),
        ({"data": {"partition": {"kind": "dirichlet"}}}, "data.partition.field"),
        ({"data": {"public": ""}}, "data.public"),
        ({"data": {"test": ""}}, "data.test"),
        (
            {
                "task": {"kind": "sequence-classification", "labels": ["a", "b"]},
                "evaluation": {"exact_match": True},
            },
            "evaluation.exact_match",
        ),
        ({"privacy": PRIVATE, "rounds": EXAMPLES}, "rounds.weighting"),
        ({"adapter": {"initialiser": "dp-sketch"}}, "privacy.mechanism"),
        ({"privacy": PRIVATE, "rounds": UNIFORM, "evaluation": {"federated": True}}, "evaluation.federated"),
        ({"privacy": PRIVATE, "rounds": UNIFORM, "task": {"too_long": "error"}}, "task.too_long"),
        ({"privacy": PRIVATE, "rounds": UNIFORM, "data": OWN}, "data.public"),
        ({"privacy": PRIVATE | {"max_batch": 64}, "rounds": UNIFORM}, "privacy.max_batch"),
        ({"privacy": CLIENT, "rounds": EXAMPLES}, "rounds.weighting"),
        ({"privacy": CLIENT, "rounds": UNIFORM | {"cohort": 2}}, "rounds.cohort"),
        ({"privacy": CLIENT, "rounds": UNIFORM, "evaluation": {"federated": True}}, "evaluation.federated"),
        ({"privacy": CLIENT, "rounds": UNIFORM, "data": OWN}, "data.public"),
        (
            {
                "privacy": CLIENT | {"clip_quantile": 0.5, "count_noise": 1.0, "noise_multiplier": 2.0},
                "rounds": UNIFORM,
            },
            "privacy.count_noise",
        ),
        (
            {"privacy": PRIVATE | {"sampling": "truncated-poisson", "max_batch": 31}, "rounds": UNIFORM},
            "privacy.max_batch",
        ),
    ],
)
def test_each_contradiction_is_found_alone(table: dict[str, object], path: str) -> None:
    assert [line.partition(":")[0] for line in mistakes_of(table)] == [path]


def test_a_private_run_lists_all_that_would_leak() -> None:
    found = mistakes_of(
        {
            "privacy": PRIVATE,
            "rounds": EXAMPLES,
            "evaluation": {"federated": True},
            "task": {"too_long": "error"},
        }
    )

    assert {line.partition(":")[0] for line in found} == {
        "rounds.weighting",
        "evaluation.federated",
        "task.too_long",
    }


@pytest.mark.parametrize(
    ("table", "weighting"),
    [
        ({}, "examples"),
        ({"privacy": PRIVATE}, "uniform"),
        ({"privacy": CLIENT}, "uniform"),
        ({"aggregation": {"rule": "median"}}, "uniform"),
        ({"aggregation": {"rule": "mean"}}, "examples"),
        ({"rounds": UNIFORM}, "uniform"),
    ],
)
def test_weights_that_are_left_out_follow_from_what_clients_say(
    table: dict[str, object], weighting: str
) -> None:
    assert check(table).rounds.weighting == weighting


def test_without_privacy_nothing_of_it_is_asked_for() -> None:
    assert check({"privacy": {"max_batch": 1}}).privacy.mechanism == "none"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_are_finite(value: float) -> None:
    assert mistakes_of({"training": {"learning_rate": value}})


def test_a_very_long_value_is_shortened() -> None:
    (line,) = mistakes_of({"model": {"dtype": "x" * 10_000}})

    assert len(line) < 250


def test_overrides_are_toml_values_and_bare_words_are_strings() -> None:
    found = parse_overrides(
        ["a.b=3", "c = 1e-3", "d=true", 'e="x=y"', "f=word", "g=[1, 2]", "h=", "i=a=b", "j=not toml ["]
    )

    assert found == {
        "a.b": 3,
        "c": 1e-3,
        "d": True,
        "e": "x=y",
        "f": "word",
        "g": [1, 2],
        "h": "",
        "i": "a=b",
        "j": "not toml [",
    }


@given(
    st.one_of(st.integers(-(2**62), 2**62), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
)
def test_an_override_keeps_its_value(value: object) -> None:
    found = parse_value(json.dumps(value))

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("pair", ["no-equals-sign", "=3", " =3"])
def test_an_override_without_a_key_is_an_error(pair: str) -> None:
    with pytest.raises(FedftError) as error:
        parse_overrides([pair])
    assert error.value.code == "FEDFT-1004"


def test_an_override_inside_a_value_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("seed = 1\n")

    with pytest.raises(FedftError, match="'seed' is not a section") as error:
        load_config(path, {"seed.x": 1})
    assert error.value.code == "FEDFT-1004"


def test_an_override_of_an_unknown_key_is_a_mistake() -> None:
    with pytest.raises(FedftError, match=r"rounds\.totl: unknown key, did you mean total") as error:
        load_config("demo", {"rounds.totl": 1})
    assert error.value.code == "FEDFT-1003"


def test_a_list_may_be_written_as_a_comma_separated_string() -> None:
    config = check({"adapter": {"targets": "q_proj, v_proj"}})

    assert config.adapter.targets == ("q_proj", "v_proj")


def test_a_missing_file_a_folder_and_bad_toml_are_told_apart(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[rounds\ntotal = 3")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")

    for path, code in [
        (tmp_path / "none.toml", "FEDFT-1001"),
        (tmp_path, "FEDFT-1001"),
        (bad, "FEDFT-1002"),
        (binary, "FEDFT-1002"),
    ]:
        with pytest.raises(FedftError, match=path.name) as error:
            load_config(path)
        assert error.value.code == code


def test_data_paths_count_from_the_file_and_the_store_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "train.jsonl").write_text("{}")
    (folder / "parts").mkdir()
    (folder / "parts" / "a.jsonl").write_text("{}")
    path = folder / "run.toml"
    data = 'train = "train.jsonl"\ntest = "parts/*.jsonl"\npublic = "owner/name"'
    path.write_text(f'[data]\n{data}\n[store]\npath = "kept"\n')
    monkeypatch.chdir(elsewhere)

    config = load_config(path)

    assert config.data.train == str(folder / "train.jsonl")
    assert config.data.test == str(folder / "parts" / "*.jsonl")
    assert config.data.public == "owner/name"
    assert config.store.path == str(elsewhere / "kept")


def test_json_is_canonical_and_comes_back() -> None:
    config = load_config("demo")

    text = to_json(config)

    assert from_json(text) == config
    assert to_json(from_json(text)) == text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("text", "code"), [("{", "FEDFT-1002"), ("[1]", "FEDFT-1002"), ('{"seed": -1}', "FEDFT-1003")]
)
def test_stored_json_that_is_no_configuration_is_an_error(text: str, code: str) -> None:
    with pytest.raises(FedftError) as error:
        from_json(text)
    assert error.value.code == code


def test_a_process_validates_one_configuration_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = to_json(load_config("demo", {"seed": 4242}))
    seen: list[object] = []

    def counted(table: dict[str, Any]) -> RunConfig:
        seen.append(table)
        return check(table)

    monkeypatch.setattr(load, "check", counted)

    assert from_json(text) is from_json(text)
    assert len(seen) == 1
