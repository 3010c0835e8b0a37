"""``fedft quantise``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedft.config.schema import ModelSection, TaskSection
from fedft.models.load import load_base
from tests.cli.run import fedft, output_json


@pytest.mark.parametrize("format", ["nf4", "int8"])
def test_the_folder_is_the_base_that_a_run_loads(format: str, tmp_path: Path) -> None:
    printed = output_json(fedft("quantise", "demo", tmp_path / "few", "--format", format, "--json"))

    source = ModelSection(source=printed["path"], quant=format)
    dense = ModelSection(source="demo", quant=format)
    task = TaskSection()
    assert load_base(source, task, 1).digest == load_base(dense, task, 1).digest == printed["base_digest"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    result = fedft("quantise", "demo", tmp_path)

    assert result.exit_code == 1
    assert "FEDFT-6008" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
