"""gRPC servers and channels with mutual TLS 1.3, and who is at the other end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from fedft.errors import Code, FedftError
from fedft.identity.keys import fingerprint, read_file

CHUNK = 1 << 20
_MAX_MESSAGE = 4 << 20
_COMMON = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A fixed window in place of one that grows with the line: what is read ahead bounds both the memory of
    # a transfer and what a cut sends twice. 8 MiB fill a line of 1 Gbit/s at 60 ms.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 8 << 20),
]
_SERVER = [
    # Without this, a second server on the same port would silently take a share of the connections.
    ("grpc.so_reuseport", 0),
    # Who has connected and shows no certificate by then is cut off; gRPC's own patience is two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Not only a pause: also how long an attempt to connect, with its TLS handshake, may take.
    ("grpc.min_reconnect_backoff_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True)
class TlsFiles:
    """Where one end's certificate lies, its key, and the certificate authority that it trusts."""

    authority: Path
    certificate: Path
    key: Path


def start_server(
    files: TlsFiles, address: str, register: Callable[[grpc.Server], None], *, threads: int
) -> tuple[grpc.Server, int]:
    """Serve on ``address``; every client must hold a certificate of the authority.

    Returns:
        The running server and its port.

    Raises:
        FedftError: FEDFT-6203 when the address cannot be bound.

    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="grpc")
    server = grpc.server(pool, options=_COMMON + _SERVER, maximum_concurrent_rpcs=threads)
    register(server)
    pair = (read_file(files.key), read_file(files.certificate))
    credentials = grpc.ssl_server_credentials([pair], read_file(files.authority), require_client_auth=True)
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError:
        port = 0
    if not port:
        pool.shutdown(wait=False)
        raise FedftError(
            Code.ADDRESS_UNAVAILABLE,
            f"cannot listen on {address}",
            hint="another process has the port, or the host is not this machine's; change server.toml",
        )
    server.start()
    return server, port


def open_channel(files: TlsFiles, address: str) -> grpc.Channel:
    """Open a channel; the connection is made at the first call."""
    credentials = grpc.ssl_channel_credentials(
        read_file(files.authority), read_file(files.key), read_file(files.certificate)
    )
    return grpc.secure_channel(address, credentials, options=_COMMON + _CHANNEL)


def peer_fingerprint(context: Any) -> str:
    """Return the fingerprint of the key that the caller's certificate is for."""
    found = context.auth_context().get("x509_pem_cert", [])
    if not found:
        raise FedftError(Code.KEY_NOT_ENROLLED, "the caller showed no certificate")
    return fingerprint(x509.load_pem_x509_certificate(bytes(found[0])))
