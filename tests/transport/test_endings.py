"""Which refusals of a server end a site's daemon, and which it waits out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedft.transport.client
from fedft.client.daemon.daemon import Daemon
from fedft.client.daemon.worker_supervisor import WorkerProcess
from fedft.client.site.config import load_site
from fedft.errors import Code, FedftError, Kind
from fedft.identity.enrolment import enroll
from fedft.transport.rpc_errors import as_error
from tests.deployment import wait_until
from tests.transport.conftest import Server


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No worker, and signals as they were afterwards: these daemons are told nothing to work on."""
    monkeypatch.setattr(WorkerProcess, "start", lambda _self: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _site(server: Server, *, called: str = "site", enrolled: bool = True) -> Path:
    """Join a site that reaches the server at the port that it has; ``called`` is the name it gives itself."""
    path = server.join(enrolled=enrolled) / "site.toml"
    text = path.read_text().replace(load_site(path).server.address, f"localhost:{server.port}")
    path.write_text(text.replace('name = "site"', f'name = "{called}"'))
    return path


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize("code", ["FEDFT-6207", "FEDFT-7033", "FEDFT-7035", "FEDFT-7039"])
def test_a_daemon_ends_where_the_server_will_not_have_it_as_it_is(
    server: Server, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _site(server, called="someone" if code == "FEDFT-7039" else "site")
    if code == "FEDFT-7035":
        monkeypatch.setattr(fedft.transport.client, "LINK_VERSION", 99)
    if code == "FEDFT-7033":
        server.registry.revoke("site", "stolen")
    if code == "FEDFT-6207":
        request = (path.parent / "request.json").read_text()
        enroll(server.registry, server.authority, request, "operator")
    daemon = Daemon(path)
    alarm = threading.Timer(30, daemon.stop)
    alarm.start()

    with pytest.raises(FedftError, match=code):
        daemon.run()

    alarm.cancel()
    assert Code(code).kind is Kind.DENIED


@pytest.mark.usefixtures("no_worker")
def test_a_daemon_waits_until_its_key_is_enrolled(server: Server) -> None:
    path = _site(server, enrolled=False)
    daemon = Daemon(path)

    def enrol_late() -> None:
        wait_until(lambda: server.registry.incidents(), 20)
        request = (path.parent / "request.json").read_text()
        enroll(server.registry, server.authority, request, "client")
        wait_until(lambda: server.board.nodes(), 20)
        daemon.stop()

    late = threading.Thread(target=enrol_late)
    late.start()
    daemon.run()
    late.join()

    assert server.registry.incidents()[0]["code"] == "FEDFT-7032"


class _Call:
    def __init__(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize("code", ["FEDFT-7038", "FEDFT-0042"])
def test_an_error_of_the_server_keeps_its_code_even_one_that_only_a_newer_server_has(code: str) -> None:
    error = as_error(_Call(f"{code} what happened\x1fwhat to do"), "host:1")

    assert (error.code, error.message, error.hint) == (code, "what happened", "what to do")
    assert error.code.kind is Kind.FINAL
