"""GrpcGrid over a real mutual-TLS connection, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message

from fedft.coordinator.exchange import ExchangeOptions, Request, exchange
from fedft.errors import FedftError
from fedft.transport.flower_messages import new_message
from fedft.transport.flower_records import pack, unpack
from fedft.transport.grid import GrpcGrid
from fedft.wire import Hello, Refusal, RoundRef, encode_reply, open_envelope, seal
from tests.deployment import wait_until
from tests.transport.conftest import Server, Site

DIGEST = "ab" * 32


def _hello(name: str) -> bytes:
    return encode_reply(Hello(name, DIGEST, 5, 1, {1: 1}))


def _grid(server: Server) -> GrpcGrid:
    return GrpcGrid(server.board, server.signing_key)


def _push(grid: GrpcGrid, node: int, payload: bytes = b"do this", ttl: float = 60.0) -> str:
    message = new_message(grid, pack(seal(payload)), "query", node, group="1", ttl=ttl)
    return next(iter(grid.push_messages([message])))


def _pull(grid: GrpcGrid, message_id: str, seconds: float = 10.0) -> Message:
    replies: list[Message] = wait_until(lambda: list(grid.pull_messages([message_id])), seconds)
    return replies[0]


def _fetch(server: Server, site: Site, tmp_path: Path, index: int = -1) -> bytes:
    wait_until(lambda: site.work, 10)
    work = site.work[index]
    path = site.link.download(work.digest, work.size, tmp_path / work.digest, 10)
    return path.read_bytes()


def test_a_message_goes_to_its_site_signed_and_its_signed_reply_comes_back(
    server: Server, tmp_path: Path
) -> None:
    site, grid = server.site().connect(), _grid(server)
    assert list(grid.get_node_ids()) == [site.node]

    message_id = _push(grid, site.node)
    envelope = _fetch(server, site, tmp_path)
    key = server.signing_key.public_key()
    assert open_envelope(envelope, max_bytes=1000, trusted_key=key) == b"do this"
    assert (site.work[0].message_type, site.work[0].group) == ("query", "1")
    reply = seal(_hello("site"), site.signing_key)
    site.link.upload(message_id, reply, 10)

    answer = _pull(grid, message_id)
    assert unpack(answer.content) == reply
    assert answer.metadata.reply_to_message_id == message_id


def test_the_exchange_takes_each_reply_within_milliseconds(server: Server, tmp_path: Path) -> None:
    site, grid = server.site().connect(), _grid(server)
    reply = seal(_hello("site"), site.signing_key)
    requests = [Request("site", site.node, seal(b"x"))]
    overheads = []
    for _ in range(5):
        site.work.clear()
        start = time.monotonic()
        answers = exchange(grid, requests, ExchangeOptions("query", "1", deadline=20))
        import threading

        def answer() -> None:
            _fetch(server, site, tmp_path)
            site.link.upload(site.work[0].message_id, reply, 10)

        thread = threading.Thread(target=answer)
        thread.start()
        assert [item.envelope for item in answers] == [reply]
        overheads.append(time.monotonic() - start)
        thread.join()
    assert sorted(overheads)[2] < 0.5


def test_a_message_waits_for_an_absent_site_and_comes_again_after_a_reconnection(
    server: Server, tmp_path: Path
) -> None:
    site, grid = server.site(), _grid(server)
    message_id = _push(grid, site.node)
    site.connect()
    wait_until(lambda: site.work, 10)

    again = server.site()
    again.link._instance = site.link._instance
    again.connect()
    wait_until(lambda: again.work, 10)
    assert again.work[0].message_id == site.work[0].message_id == message_id


def test_a_closed_message_is_neither_sent_nor_answered(server: Server, tmp_path: Path) -> None:
    site, grid = server.site().connect(), _grid(server)
    message_id = _push(grid, site.node, ttl=0.5)
    wait_until(lambda: site.work, 10)
    time.sleep(0.6)

    with pytest.raises(FedftError, match="FEDFT-7038"):
        site.link.upload(message_id, seal(_hello("site"), site.signing_key), 5)
    with pytest.raises(FedftError, match="FEDFT-7038"):
        site.link.download(site.work[0].digest, site.work[0].size, tmp_path / "late", 5)
    assert list(grid.pull_messages([message_id])) == []


def test_a_second_answer_to_the_same_message_is_refused(server: Server) -> None:
    site, grid = server.site().connect(), _grid(server)
    message_id = _push(grid, site.node)
    reply = seal(_hello("site"), site.signing_key)
    site.link.upload(message_id, reply, 5)
    with pytest.raises(FedftError, match="FEDFT-7038"):
        site.link.upload(message_id, reply, 5)


def test_nobody_fetches_or_answers_what_is_another_sites(server: Server, tmp_path: Path) -> None:
    alice, mallory, grid = server.site("alice").connect(), server.site("mallory").connect(), _grid(server)
    message_id = _push(grid, alice.node)
    wait_until(lambda: alice.work, 10)
    with pytest.raises(FedftError, match="FEDFT-7038"):
        mallory.link.download(alice.work[0].digest, alice.work[0].size, tmp_path / "stolen", 5)
    with pytest.raises(FedftError, match="FEDFT-7038"):
        mallory.link.upload(message_id, seal(_hello("alice"), mallory.signing_key), 5)


def _with_last_bit_flipped(envelope: bytes) -> bytes:
    return envelope[:-1] + bytes([envelope[-1] ^ 1])


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (lambda site, other: seal(_hello("site")), "FEDFT-4005"),
        (lambda site, other: seal(_hello("site"), other.signing_key), "FEDFT-4006"),
        (lambda site, other: seal(_hello("other"), site.signing_key), "FEDFT-7039"),
        (lambda site, other: _with_last_bit_flipped(seal(_hello("site"), site.signing_key)), "FEDFT-4006"),
        (lambda site, other: b"\0garbage", "FEDFT-4002"),
        (lambda site, other: bytes(49 << 20), "FEDFT-7036"),
    ],
    ids=["unsigned", "another key", "another name", "altered", "garbage", "too large"],
)
def test_a_forged_reply_is_refused_noted_and_displaces_nothing(
    server: Server, forge: Callable[[Site, Site], bytes], code: str
) -> None:
    site, other, grid = server.site().connect(), server.site("other"), _grid(server)
    message_id = _push(grid, site.node)
    with pytest.raises(FedftError, match=code):
        site.link.upload(message_id, forge(site, other), 5)
    assert list(grid.pull_messages([message_id])) == []
    if code != "FEDFT-7036":
        assert [item["code"] for item in server.registry.incidents()] == [code]

    refusal = seal(encode_reply(Refusal(RoundRef("run", 1), "FEDFT-7010", "no")), site.signing_key)
    site.link.upload(message_id, refusal, 5)
    assert unpack(_pull(grid, message_id).content) == refusal


def test_a_site_that_is_put_out_fails_at_once_now_and_later(server: Server) -> None:
    site, grid = server.site().connect(), _grid(server)
    message_id = _push(grid, site.node)
    server.board.expel(site.node, FedftError("FEDFT-7033", "revoked"))
    for key in (message_id, _push(grid, site.node)):
        failure = _pull(grid, key, 1.0)
        assert failure.has_error()
        assert "FEDFT-7033" in (failure.error.reason or "")


def test_what_a_closed_grid_withdraws_is_told_to_its_site(server: Server) -> None:
    site, grid = server.site().connect(), _grid(server)
    message_id = _push(grid, site.node)
    wait_until(lambda: site.work, 10)
    grid.close()
    wait_until(lambda: site.withdrawn == [message_id], 10)
