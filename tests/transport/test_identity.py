"""Who may connect, and what becomes of those who may not."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest

from fedft.errors import FedftError
from fedft.identity.enrolment import enroll
from fedft.transport.tls import TlsFiles, start_server
from tests.deployment import wait_until
from tests.transport.conftest import SILENCE, Server, Site


def _refusal(site: Site) -> str:
    with pytest.raises(FedftError) as caught:
        site.link.connection(lambda _: None, lambda _: None)
    return caught.value.code


def test_a_session_names_the_enrolled_site_and_tells_the_clocks_apart(server: Server) -> None:
    site = server.site("hospital-a").connect()
    assert site.accepted[0].client_name == "hospital-a"
    assert abs(site.accepted[0].clock_skew) < 5
    assert [connection.name for connection in server.board.sessions()] == ["hospital-a"]


def test_a_key_that_is_not_enrolled_is_refused_although_its_certificate_is_good(server: Server) -> None:
    assert _refusal(server.site(enrolled=False)) == "FEDFT-7032"
    assert server.registry.incidents()[0]["code"] == "FEDFT-7032"


def test_a_revoked_key_is_refused_and_its_session_ends(server: Server) -> None:
    from fedft.errors import FedftError as Error

    site = server.site().connect()
    server.registry.revoke("site", "stolen")
    server.board.expel(site.node, Error("FEDFT-7033", "the key of site was revoked: stolen"))
    wait_until(lambda: "FEDFT-7033" in site.errors, 10)
    assert server.board.nodes() == []
    assert _refusal(server.site()) == "FEDFT-7033"


def test_an_operators_key_is_no_clients(server: Server) -> None:
    site = server.site("someone", enrolled=False)
    request = (server.folder / "someone" / "request.json").read_text()
    enroll(server.registry, server.authority, request, "operator")
    assert _refusal(site) == "FEDFT-6207"


def test_an_expired_certificate_is_refused(server: Server) -> None:
    assert _refusal(server.site(days=-1)) in ("FEDFT-7030", "FEDFT-7031")


def test_certificates_of_another_authority_are_refused_by_both_ends(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path / "other")
    try:
        assert _refusal(other.site(port=server.port)) == "FEDFT-7031"
        mixed = server.join("mixed")
        shutil.copy(other.join("mixed") / "certificate.pem", mixed / "certificate.pem")
        shutil.copy(other.join("mixed") / "tls.key", mixed / "tls.key")
        assert _refusal(server.site("mixed")) in ("FEDFT-7030", "FEDFT-7031")
    finally:
        other.close()


def test_a_second_daemon_with_the_same_key_is_refused_while_the_first_is_alive(server: Server) -> None:
    first = server.site().connect()
    assert _refusal(server.site()) == "FEDFT-7034"
    assert server.registry.incidents()[-1]["code"] == "FEDFT-7034"
    assert first.errors == []
    assert len(server.board.sessions()) == 1


def test_a_restarted_daemon_is_the_same_node_and_is_back_as_soon_as_the_old_stream_is_gone(
    server: Server,
) -> None:
    first = server.site().connect()
    node = server.board.nodes()
    first.stop.set()
    start = time.monotonic()
    second = server.site().connect()
    assert time.monotonic() - start < SILENCE + 4
    assert server.board.nodes() == node == [second.node]


def test_a_dead_session_gives_way(server: Server) -> None:
    first = server.site().connect()
    connection = server.board.sessions()[0]
    connection.last_heard = time.monotonic() - SILENCE - 1  # as after a power cut at the site
    server.site().connect()
    assert connection not in server.board.sessions()
    first.stop.set()


def _handshake(server: Server, version: ssl.TLSVersion, *, certificate: bool) -> str:
    files = server.site().config.tls
    context = ssl.create_default_context(cafile=files.authority)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    if certificate:
        context.load_cert_chain(files.certificate, files.key)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        if not secure.recv(1):
            raise ssl.SSLError("closed")
        return str(secure.version())


def test_only_tls_1_3_with_a_certificate_is_spoken(server: Server) -> None:
    assert _handshake(server, ssl.TLSVersion.TLSv1_3, certificate=True) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(server, ssl.TLSVersion.TLSv1_2, certificate=True)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(server, ssl.TLSVersion.TLSv1_3, certificate=False)


def test_a_port_that_is_taken_is_an_error(server: Server) -> None:
    files: TlsFiles = server.settings.tls
    with pytest.raises(FedftError, match=r"FEDFT-6203.*cannot listen"):
        start_server(files, f"127.0.0.1:{server.port}", lambda _: None, threads=2)
