"""Transfers that are cut, damaged or too large."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from fedft.errors import FedftError
from fedft.transport.flower_messages import new_message
from fedft.transport.flower_records import pack, unpack
from fedft.transport.grid import GrpcGrid
from fedft.transport.transfer import PartialFile, receive
from fedft.wire import Hello, encode_reply, open_envelope, seal
from tests.deployment import wait_until
from tests.transport.conftest import Server
from tests.transport.proxy import Proxy

SIZE = 12 << 20


def _file(path: Path, data: bytes) -> PartialFile:
    return PartialFile(path, hashlib.sha256(data).hexdigest(), len(data))


def test_a_partial_file_goes_on_where_it_ended(tmp_path: Path) -> None:
    data = os.urandom(5000)
    with _file(tmp_path / "x", data) as file:
        file.add(data[:2000])
    file = _file(tmp_path / "x", data)
    assert file.offset == 2000
    receive(file, [data[2000:4000], data[4000:]])
    assert (tmp_path / "x").read_bytes() == data
    assert file.offset == 5000
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_damaged_file_is_deleted_and_a_short_one_kept(tmp_path: Path) -> None:
    data = os.urandom(100)
    with pytest.raises(FedftError, match="FEDFT-7037"):
        receive(_file(tmp_path / "x", data), [data[:60]])
    assert _file(tmp_path / "x", data).offset == 60
    with pytest.raises(FedftError, match="FEDFT-7037"):
        receive(_file(tmp_path / "x", data), [bytes(40)])
    assert _file(tmp_path / "x", data).offset == 0


def test_more_than_announced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedftError, match="FEDFT-7036"):
        receive(_file(tmp_path / "x", b"abc"), [b"abcd"])
    with pytest.raises(FedftError, match="FEDFT-7036"):
        receive(PartialFile(tmp_path / "y", "00" * 32, 8 << 20), [bytes(3 << 20)])


def test_two_transfers_of_the_same_bytes_do_not_mix(tmp_path: Path) -> None:
    with (
        _file(tmp_path / "x", b"abc"),
        pytest.raises(FedftError, match=r"FEDFT-7037.*going on"),
        _file(tmp_path / "x", b"abc"),
    ):
        pass


def test_a_download_that_is_cut_goes_on_without_starting_over(server: Server, tmp_path: Path) -> None:
    proxy = Proxy(server.port)
    site = server.site(port=proxy.port).connect()
    grid, payload = GrpcGrid(server.board, server.signing_key), os.urandom(4 * SIZE)
    grid.push_messages([new_message(grid, pack(seal(payload)), "train", site.node, group="1", ttl=60)])
    wait_until(lambda: site.work, 10)
    proxy.cut_down(40 << 20)

    path = site.link.download(site.work[0].digest, site.work[0].size, tmp_path / "instruction", 30)

    assert open_envelope(path.read_bytes(), max_bytes=5 * SIZE) == payload
    assert proxy.cuts == 1
    # What was in flight when the line was cut (gRPC's window) is sent twice, and nothing else.
    assert proxy.down < len(payload) + (16 << 20)
    proxy.close()


def test_an_upload_that_is_cut_goes_on_without_starting_over(server: Server) -> None:
    proxy = Proxy(server.port)
    site = server.site(port=proxy.port).connect()
    grid = GrpcGrid(server.board, server.signing_key)
    [message_id] = grid.push_messages(
        [new_message(grid, pack(seal(b"x")), "train", site.node, group="1", ttl=60)]
    )
    reply = _large_reply(site.signing_key, 32 << 20)
    proxy.cut_up(26 << 20)

    site.link.upload(message_id, reply, 30)

    assert unpack(wait_until(lambda: list(grid.pull_messages([message_id])), 10)[0].content) == reply
    assert proxy.cuts == 1
    # What was under way at the cut is sent again, window and socket buffers: never all of the 26 MiB.
    assert proxy.up < len(reply) + (20 << 20)
    proxy.close()


def test_a_reply_that_the_server_holds_already_is_not_sent_again(server: Server) -> None:
    proxy = Proxy(server.port)
    site = server.site(port=proxy.port).connect()
    grid, reply = GrpcGrid(server.board, server.signing_key), _large_reply(site.signing_key)
    for expected in (len(reply) + (1 << 20), 1 << 20):
        proxy.up = 0
        [message_id] = grid.push_messages(
            [new_message(grid, pack(seal(b"x")), "train", site.node, group="1", ttl=60)]
        )
        site.link.upload(message_id, reply, 30)
        assert list(grid.pull_messages([message_id]))
        assert proxy.up < expected
    proxy.close()


def test_a_server_that_comes_back_within_the_time_gets_the_reply(server: Server) -> None:
    site = server.site().connect()
    grid = GrpcGrid(server.board, server.signing_key)
    [message_id] = grid.push_messages(
        [new_message(grid, pack(seal(b"x")), "train", site.node, group="1", ttl=60)]
    )
    server.grpc.stop(None).wait()
    timer = threading.Timer(1.5, server.start, [f"127.0.0.1:{server.port}"])
    timer.start()
    site.link.upload(message_id, seal(encode_reply(_hello(0)), site.signing_key), 30)
    assert list(grid.pull_messages([message_id]))


def test_a_full_disk_at_the_server_is_named_at_both_ends(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = server.site().connect()
    grid = GrpcGrid(server.board, server.signing_key)
    [message_id] = grid.push_messages(
        [new_message(grid, pack(seal(b"x")), "train", site.node, group="1", ttl=60)]
    )
    reply = seal(encode_reply(_hello(0)), site.signing_key)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedft.transport.transfer.os.fsync", full)
        with pytest.raises(FedftError, match=r"FEDFT-6212.*No space left"):
            site.link.upload(message_id, reply, 1.0)
    assert {item["code"] for item in server.registry.incidents()} == {"FEDFT-6212"}
    site.link.upload(message_id, reply, 10)
    assert list(grid.pull_messages([message_id]))


def _hello(features: int) -> Hello:
    names = tuple(os.urandom(128).hex() for _ in range(features))
    return Hello("site", "ab" * 32, 5, 1, {1: 1}, names)


def _large_reply(key: object, size: int = SIZE) -> bytes:
    return seal(_update(size), key)  # type: ignore[arg-type]


def _update(size: int) -> bytes:
    from fedft.codecs.spec import CodecSpec, DenseParams, Shard
    from fedft.wire import ModelRef, RoundRef, Update

    shard = Shard(0, 1, CodecSpec(1, 1, DenseParams("float32")), os.urandom(size), b"")
    digest = "ab" * 32
    model = ModelRef(digest, digest, digest, digest)
    return encode_reply(Update(RoundRef("run", 1), model, "site", 1, 5, (shard,)))
