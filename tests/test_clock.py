"""One clock for the process, and nothing beside it."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

import fedft
from fedft import clock
from fedft.clock import ManualClock
from fedft.identity import keys
from fedft.identity.authority import Authority
from fedft.store.hash_chain import HashChain
from fedft.transport.broker import ClientConnection

START = datetime(2030, 1, 1, tzinfo=UTC)
ASKED = {
    ("time", "time"),
    ("time", "monotonic"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
}


def test_nothing_else_asks_what_time_it_is() -> None:
    root = Path(fedft.__file__).parent
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(root.rglob("*.py"))
        if path != root / "clock.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in ASKED
    ]
    assert not found


def test_a_set_clock_goes_as_it_is_moved_and_the_system_s_comes_back() -> None:
    manual = ManualClock(START)
    with clock.use(manual):
        manual.advance(90.0)
        assert (clock.now(), clock.monotonic()) == (START + timedelta(seconds=90), 90.0)
        manual.set_time_of_day(START)  # what an administrator sets back moves no deadline
        assert (clock.timestamp(), clock.monotonic()) == (START.timestamp(), 90.0)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_server_s_certificate_is_renewed_before_it_ends(tmp_path: Path) -> None:
    files = tmp_path / "server.pem", tmp_path / "server.key"
    manual = ManualClock(START)
    with clock.use(manual):
        authority = Authority.create(tmp_path / "ca", "test")

        def renewed() -> bool:
            return authority.renew_server(*files, "hub", ["127.0.0.1"])

        assert renewed()
        assert not renewed()
        ends: datetime = _end(files[0])
        manual.set_time_of_day(ends - timedelta(days=1))
        assert renewed()
        assert _end(files[0]) > ends


def _end(path: Path) -> datetime:
    certificate: x509.Certificate = keys.load_certificate(path)
    return certificate.not_valid_after_utc


def test_a_connection_falls_silent_by_the_clock_that_cannot_go_back() -> None:
    manual = ManualClock(START)
    with clock.use(manual):
        connection = ClientConnection(1, "site", b"instance", "peer", "0.2.0")
        manual.set_time_of_day(START - timedelta(days=1))
        assert connection.silence == 0.0
        manual.advance(7.0)
        assert connection.silence == 7.0


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_ledger_does_not_care_for_the_time_of_day(hours: int, tmp_path: Path) -> None:
    manual = ManualClock(START)
    with clock.use(manual):
        chain = HashChain(tmp_path / "chain.sqlite")
        chain.create()
        chain.append(lambda _: {"time": clock.timestamp()})
        manual.set_time_of_day(START + timedelta(hours=hours))
        chain.append(lambda _: {"time": clock.timestamp()})

    assert [entry.sequence for entry in HashChain(chain.path).read()] == [1, 2]
