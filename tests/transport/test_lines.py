"""Slow lines, silent streams, and the names of gRPC's options."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import grpc
import pytest

import fedft.transport.tls as tls
from fedft.errors import FedftError
from fedft.identity.keys import read_file
from fedft.transport.rpc_errors import raised
from tests.transport.conftest import Server
from tests.transport.proxy import Proxy


def test_every_option_is_one_that_grpc_knows() -> None:
    """gRPC ignores an option that it does not know; the names that it reads stand in its binary."""
    binary = Path(grpc._cython.cygrpc.__file__).read_bytes()
    names = {name for options in (tls._COMMON, tls._SERVER, tls._CHANNEL) for name, _ in options}
    assert len(names) > 8
    assert [name for name in sorted(names) if name.encode() + b"\0" not in binary] == []


@pytest.mark.parametrize("delay", [0.1, 0.7])
def test_a_slow_line_is_waited_for(server: Server, delay: float) -> None:
    proxy = Proxy(server.port, delay=delay)
    site = server.site(port=proxy.port)
    site.connect(wait=False)
    end = time.monotonic() + 25
    while not site.accepted and time.monotonic() < end:
        time.sleep(0.1)
    assert site.accepted, site.errors
    assert site.errors == []
    proxy.close()


def test_a_server_that_never_answers_a_handshake_is_no_matter_of_certificates(server: Server) -> None:
    proxy = Proxy(server.port, delay=3600)
    channel = grpc.secure_channel(
        f"localhost:{proxy.port}",
        grpc.ssl_channel_credentials(read_file(server.settings.tls.authority)),
        options=[*tls._CHANNEL, ("grpc.min_reconnect_backoff_ms", 1_000)],
    )
    call = channel.unary_unary("/fedft.v1.Link/Offer")
    with pytest.raises(FedftError, match="FEDFT-7030"), raised("the server"):
        call(b"", timeout=20)
    channel.close()
    proxy.close()


@pytest.mark.skipif("FEDFT_LONG" not in os.environ, reason="takes more than a minute: make test-long")
def test_a_stream_may_be_silent_for_more_than_a_minute(server: Server) -> None:
    """With pings allowed less often than they are sent, a client is cut off after 50 s: "Too many pings"."""
    site = server.site()
    silent = threading.Event()

    def hold(_request: object, context: grpc.ServicerContext) -> object:
        silent.wait(90)
        yield b"still here"

    handler = grpc.method_handlers_generic_handler(
        "Silent", {"Hold": grpc.unary_stream_rpc_method_handler(hold)}
    )
    running, port = tls.start_server(
        server.settings.tls,
        "127.0.0.1:0",
        lambda one: one.add_generic_rpc_handlers((handler,)),
        threads=2,
    )
    channel = tls.open_channel(site.config.tls, f"localhost:{port}")
    threading.Timer(65.0, silent.set).start()
    with raised("the server"):
        assert list(channel.unary_stream("/Silent/Hold")(b"")) == [b"still here"]
    channel.close()
    running.stop(None).wait()
