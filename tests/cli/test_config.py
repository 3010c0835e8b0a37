from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fedft.config import load_config
from fedft.config.load import check
from tests.cli.run import fedft, output_json, words


def test_init_writes_a_file_that_validates(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"

    written = fedft("config", "init", path, "--template", "demo")

    assert written.exit_code == 0
    assert f"fedft config validate {path}" in written.stdout
    validated = fedft("config", "validate", path)
    assert validated.exit_code == 0
    assert words(validated.stdout).startswith(f"valid {path}: 4 clients, ")


@pytest.mark.parametrize("template", ["sst2", "minimal", "private"])
def test_what_is_left_to_fill_in_does_not_validate(tmp_path: Path, template: str) -> None:
    path = tmp_path / "my.toml"
    fedft("config", "init", path, "--template", template)

    refused = fedft("config", "validate", path, "--json")
    assert refused.exit_code == 2
    missing = {item["path"] for item in output_json(refused)["mistakes"]}
    own = {"data.train", "data.test"}
    assert own <= missing <= own | {"data.public", "model.source"}
    assert "FEDFT-1003" in fedft("config", "validate", path).stderr

    for key in missing - {"model.source"}:
        file = tmp_path / load_config(path).data.model_dump()[key.removeprefix("data.")]
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    demo = fedft("config", "validate", path, "--set", "model.source=demo")
    assert demo.exit_code == 0, demo.stderr


def test_the_training_records_of_a_deployment_lie_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(
        '[data]\ntrain = "elsewhere.jsonl"\n[adapter]\ninitialiser = "random"\n[evaluation]\nevery = 0\n'
    )

    assert "--deployed" in fedft("config", "validate", path).stderr
    assert fedft("config", "validate", path, "--deployed").exit_code == 0


def test_init_to_standard_output(tmp_path: Path) -> None:
    result = fedft("config", "init", "-", "--template", "minimal")

    check(tomllib.loads(result.stdout))
    assert result.stderr == ""


def test_init_does_not_overwrite_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("seed = 3\n")

    refused = fedft("config", "init", path)

    assert refused.exit_code == 2
    assert "FEDFT-1005" in refused.stderr
    assert path.read_text() == "seed = 3\n"
    assert fedft("config", "init", path, "--force").exit_code == 0
    assert path.read_text() != "seed = 3\n"


def test_init_where_nothing_can_be_written(tmp_path: Path) -> None:
    result = fedft("config", "init", tmp_path / "none" / "my.toml")

    assert result.exit_code == 2
    assert "FEDFT-1006" in result.stderr


def test_validate_lists_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[rounds]\ntotal = 0\n[adapter]\nrank = "x"\n')

    result = fedft("config", "validate", path, "--set", "model.sorce=1")

    assert result.exit_code == 2
    assert result.stdout == ""
    for part in ("FEDFT-1003", "3 mistakes", "rounds.total", "adapter.rank", "model.sorce: unknown key"):
        assert part in result.stderr


def test_validate_for_scripts() -> None:
    good = fedft("config", "validate", "demo", "--json")
    bad = fedft("config", "validate", "demo", "--set", "adapter.rank=0", "--json")

    assert (good.exit_code, output_json(good)) == (0, {"valid": True, "mistakes": []})
    assert bad.exit_code == 2
    found = output_json(bad)
    assert not found["valid"]
    assert [item["path"] for item in found["mistakes"]] == ["adapter.rank"]


def test_show_prints_the_effective_configuration_as_toml() -> None:
    result = fedft("config", "show", "demo", "--set", "rounds.total=2", "--set", "adapter.targets=q_proj")

    shown = check(tomllib.loads(result.stdout))
    assert shown == load_config("demo", {"rounds.total": 2, "adapter.targets": "q_proj"})


def test_show_as_json() -> None:
    values = output_json(fedft("config", "show", "demo", "--set", "seed=5", "--json"))

    assert check(values["config"]) == load_config("demo", {"seed": 5})


def test_a_missing_file() -> None:
    result = fedft("config", "show", "none.toml")

    assert result.exit_code == 2
    assert "FEDFT-1001" in result.stderr
