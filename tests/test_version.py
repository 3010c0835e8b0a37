"""The version stands in four files; they agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import fedft

ROOT = Path(__file__).parents[1]


def test_every_file_names_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (for_uv,) = project["tool"]["uv"]["dependency-metadata"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changed = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert cited is not None
    assert changed is not None
    assert {project["project"]["version"], for_uv["version"], cited[1], changed[1]} == {fedft.__version__}
