"""The server's process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fedft.errors import FedftError
from fedft.server.daemon import ServerDaemon
from fedft.server.settings import ServerSettings, initialise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = ServerSettings(
        hosts=("localhost",),
        link="127.0.0.1:0",
        admin="127.0.0.1:0",
        metrics="",
        folder=tmp_path / "server",
    )
    initialise(settings)
    return settings.folder


def test_a_server_whose_coordinating_thread_ended_ends_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    daemon = ServerDaemon(folder)
    monkeypatch.setattr(daemon._runner, "run", lambda: None)
    with pytest.raises(FedftError, match="FEDFT-6214"):
        daemon.run()
