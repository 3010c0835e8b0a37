"""What the tests of whole runs share."""

from pathlib import Path

import pytest

from fedft.client.worker.answer import process_worker


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test's clients a state and a cache of their own, and a worker that has loaded nothing."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    process_worker.cache_clear()
    return tmp_path / "state" / "fedft"
