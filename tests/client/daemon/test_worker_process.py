"""The worker's process ends with its daemon, however that ended."""

from __future__ import annotations

import select
import socket
import subprocess
import sys

import pytest


@pytest.mark.parametrize("last_words", [b"", b'{"message_id": "half a'])
def test_a_daemon_that_was_killed_takes_its_worker_along(last_words: bytes) -> None:
    """What the daemon had not read resets the connection; what it was writing is no whole line."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "fedft.client.daemon.worker_process", str(theirs.fileno()), "site.toml"]
    worker = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    try:
        theirs.close()
        assert select.select([ours], [], [], 120)[0], "the worker is not ready"
        ours.sendall(last_words)
        ours.close()
        assert worker.wait(timeout=20) == 0
    finally:
        worker.kill()
        worker.wait()
