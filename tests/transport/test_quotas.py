"""What one enrolled site can take from the server: its own share and no more."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from flwr.app import Message

from fedft.errors import FedftError
from fedft.server.admin.service import AdminService
from fedft.server.daemon import raise_descriptor_limit
from fedft.transport.broker import Broker, ClientConnection
from fedft.transport.flower_messages import new_message
from fedft.transport.flower_records import pack
from fedft.transport.grid import GrpcGrid
from fedft.transport.open_calls import CONNECT, OpenCalls
from fedft.transport.tls import open_channel
from fedft.wire import Hello, encode_reply, seal
from fedft.wire.v1 import link_pb2 as pb
from fedft.wire.v1.link_pb2_grpc import LinkStub
from tests.deployment import wait_until
from tests.transport.conftest import Server, Site


def _push(grid: GrpcGrid, node: int, ttl: float = 60.0) -> str:
    message: Message = new_message(grid, pack(seal(b"x")), "train", node, group="1", ttl=ttl)
    return next(iter(grid.push_messages([message])))


def _reply(site: Site, size: int = 0) -> bytes:
    hello = Hello("site", "ab" * 32, size, 1, {1: 1})
    return seal(encode_reply(hello), site.signing_key)


@pytest.fixture
def streams(server: Server) -> Iterator[Callable[[Site], Any]]:
    """Silent Connect streams: opened, and never a word said on them."""
    silent = threading.Event()
    channels: list[grpc.Channel] = []

    def nothing() -> Iterator[Any]:
        silent.wait()
        yield from ()

    def open_one(site: Site) -> Any:
        if not channels:
            channels.append(open_channel(site.config.tls, f"localhost:{server.port}"))
        return LinkStub(channels[0]).Connect(nothing())

    yield open_one
    silent.set()
    for channel in channels:
        channel.close()


def test_silent_streams_of_one_site_are_few_are_ended_and_are_noted(
    server: Server, streams: Callable[[Site], Any]
) -> None:
    hostile, honest = server.site("hostile"), server.site("honest")
    calls = [streams(hostile) for _ in range(100)]  # the server of the tests has 32 threads
    honest.connect()  # perhaps at its second attempt: the burst itself took every thread for a moment
    wait_until(lambda: all(call.done() for call in calls), 20)
    assert any("FEDFT-7058" in call.details() for call in calls)
    assert ("hostile", "FEDFT-7058") in {(i["member"], i["code"]) for i in server.registry.incidents()}


def test_a_revocation_ends_every_call_of_the_key_before_it_is_over(
    server: Server, streams: Callable[[Site], Any]
) -> None:
    site = server.site()
    calls = [streams(site) for _ in range(3)]
    fingerprint = server.registry.member("site").fingerprint
    wait_until(lambda: len(server.calls._calls.get(fingerprint, ())) == 3, 10)
    server.registry.revoke("site", "stolen")
    assert server.calls.end(fingerprint)
    assert server.calls._calls == {}
    wait_until(lambda: all(call.done() for call in calls), 5)


def test_calls_are_counted_for_each_key_and_kind() -> None:
    calls, cancelled = OpenCalls(), list[str]()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(calls.one_of("a", CONNECT, lambda: cancelled.append("a")))
        with pytest.raises(FedftError, match="FEDFT-7058"):
            stack.enter_context(calls.one_of("a", CONNECT, lambda: None))
        stack.enter_context(calls.one_of("b", CONNECT, lambda: cancelled.append("b")))
    assert calls.end("a")
    assert cancelled == []


def test_a_server_takes_no_more_sites_than_its_limit() -> None:
    board = Broker(3.0, most=2)
    for node in (1, 2):
        board.join(ClientConnection(node, f"site-{node}", b"", "here"))
    with pytest.raises(FedftError, match="FEDFT-7058"):
        board.join(ClientConnection(3, "site-3", b"", "here"))
    board.join(ClientConnection(2, "site-2", b"", "the same daemon again"))


def _inbox(server: Server) -> dict[str, int]:
    folder = server.folder / "inbox"
    return {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _begin_upload(server: Server, site: Site, message_id: str, size: int) -> None:
    """Send half of a reply and go."""
    data = os.urandom(size)
    header = pb.UploadHeader(message_id=message_id, digest=hashlib.sha256(data).digest(), size=size)

    def parts() -> Iterator[Any]:
        yield pb.UploadPart(header=header)
        yield pb.UploadPart(chunk=pb.Chunk(data=data[: size // 2]))

    with contextlib.suppress(grpc.RpcError):
        LinkStub(site.link._channel).Upload(parts(), timeout=10)


def test_unfinished_uploads_take_the_room_of_one_reply_and_go_with_their_message(server: Server) -> None:
    site, grid = server.site().connect(), GrpcGrid(server.board, server.signing_key)
    first, second = _push(grid, site.node, ttl=6.0), _push(grid, site.node)
    for _ in range(5):
        _begin_upload(server, site, first, 1 << 20)
    assert len(_inbox(server)) == 1
    _begin_upload(server, site, second, 1 << 20)
    assert len(_inbox(server)) == 2
    time.sleep(6.0)
    site.link.upload(second, _reply(site), 10)
    assert list(_inbox(server)) == [hashlib.sha256(_reply(site)).hexdigest()]
    third = _push(grid, site.node)
    site.link.upload(third, _reply(site, 1), 10)
    assert list(_inbox(server)) == [hashlib.sha256(_reply(site, 1)).hexdigest()]


def test_a_revocation_deletes_what_the_site_has_sent(server: Server) -> None:
    site, other = server.site().connect(), server.site("other").connect()
    grid = GrpcGrid(server.board, server.signing_key)
    site.link.upload(_push(grid, site.node), _reply(site), 10)
    other_reply = seal(encode_reply(Hello("other", "ab" * 32, 0, 1, {1: 1})), other.signing_key)
    other.link.upload(_push(grid, other.node), other_reply, 10)
    assert len(_inbox(server)) == 2

    parts = (server.settings, server.registry, server.authority, Mock(), server.board, Mock(), Mock(), Mock())
    AdminService(*parts, server.calls, server.inbox)._revoke("operator", "site", "stolen")

    assert list(_inbox(server)) == [hashlib.sha256(other_reply).hexdigest()]


def test_what_lies_in_the_inbox_when_a_server_starts_is_deleted(tmp_path: Path) -> None:
    from fedft.transport.upload_store import UploadStore

    (tmp_path / "inbox" / "7").mkdir(parents=True)
    (tmp_path / "inbox" / "7" / "digest.part").write_bytes(bytes(100))
    UploadStore(tmp_path / "inbox", 1 << 20)
    assert not (tmp_path / "inbox").exists()


def test_messages_that_nobody_waits_for_are_let_go_of(server: Server) -> None:
    site, grid = server.site().connect(), GrpcGrid(server.board, server.signing_key)
    late, answered = _push(grid, site.node), _push(grid, site.node)
    site.link.upload(answered, _reply(site), 10)
    grid.drop([late, answered])
    assert (grid._sent, server.board._open, server.board._replies) == ({}, {}, {})
    with pytest.raises(FedftError, match="FEDFT-7038"):
        site.link.upload(late, _reply(site, 1), 5)
    assert site.withdrawn == []


def test_the_descriptor_limit_is_what_the_system_allows() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert raise_descriptor_limit() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
