from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedft.client.site.config import SiteConfig, load_site
from fedft.client.site.join import join_site
from fedft.identity import keys
from fedft.identity.authority import Authority
from fedft.identity.enrolment import enroll
from fedft.identity.keys import node_id
from fedft.identity.registry import Registry
from fedft.server.settings import ServerSettings, initialise
from fedft.transport.broker import Broker
from fedft.transport.client import Connected, LinkClient, Work
from fedft.transport.open_calls import OpenCalls
from fedft.transport.service import LinkService
from fedft.transport.tls import start_server
from fedft.transport.upload_store import UploadStore
from fedft.wire.v1.link_pb2_grpc import add_LinkServicer_to_server
from tests.deployment import wait_until

SILENCE = 3.0


@dataclass
class Site:
    """A site in this process: its link, and what came over it."""

    config: SiteConfig
    link: LinkClient
    stop: threading.Event
    accepted: list[Connected] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def signing_key(self) -> Any:
        return keys.load_signing_key(self.config.path("signing.key"))

    @property
    def node(self) -> int:
        return node_id(keys.fingerprint(keys.load_certificate(self.config.tls.certificate)))

    def connect(self, *, wait: bool = True) -> Site:
        arguments = (
            self.accepted.append,
            self.work.append,
            self.withdrawn.append,
            lambda error: self.errors.append(error.code),
        )
        threading.Thread(target=self.link.keep_session, args=arguments, daemon=True).start()
        if wait:
            wait_until(lambda: self.accepted, 20, f"not accepted: {self.errors}")
        return self


class Server:
    """The server's end of the link in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = ServerSettings(hosts=("localhost", "127.0.0.1"), folder=folder / "server")
        self.bundle = initialise(self.settings)
        self.registry = Registry(folder / "server" / "server.sqlite")
        self.authority = Authority(folder / "server" / "ca")
        self.board = Broker(SILENCE)
        self.calls = OpenCalls()
        self.inbox = UploadStore(folder / "inbox", 48 << 20)
        self.signing_key = keys.load_signing_key(self.settings.signing_key_path)
        self.sites: list[Site] = []
        self.start("127.0.0.1:0")

    def start(self, address: str) -> None:
        service = LinkService(self.board, self.registry, self.inbox, self.calls, first_message_seconds=1.0)
        self.grpc, self.port = start_server(
            self.settings.tls, address, lambda s: add_LinkServicer_to_server(service, s), threads=32
        )

    def join(self, name: str = "site", *, days: int = 30, enrolled: bool = True) -> Path:
        folder = self.folder / name
        if not folder.exists():
            request = join_site(self.bundle, folder, name, train="own.jsonl")
            record, certificate, _ = enroll(
                self.registry, self.authority, request.read_text(), "client", days=days
            )
            (folder / "certificate.pem").write_text(certificate)
            if not enrolled:
                self.registry._database.execute(
                    "DELETE FROM members WHERE fingerprint = ?", (record.fingerprint,)
                )
        return folder

    def site(self, name: str = "site", *, port: int = 0, **options: Any) -> Site:
        config = load_site(self.join(name, **options) / "site.toml")
        stop = threading.Event()
        site = Site(config, LinkClient(config.tls, f"localhost:{port or self.port}", stop), stop)
        self.sites.append(site)
        return site

    def close(self) -> None:
        for site in self.sites:
            site.stop.set()
        self.grpc.stop(None).wait()
        for site in self.sites:
            site.link.close()
        self.registry.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.close()
