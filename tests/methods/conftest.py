"""A package with a method of its own, installed through a real entry point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedft.registries import METHODS

ENTRY_POINTS = "[fedft.methods]\ndiagonal = tests.methods.diagonal:DIAGONAL\n"


@pytest.fixture(autouse=True)
def _diagonal_package(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("site") / "diagonal-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: diagonal\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder.parent))
    METHODS.__dict__.pop("_claims", None)
    yield
    METHODS.__dict__.pop("_claims", None)
