"""Many sites at one server: connections, memory, latency, and a round among hostile ones, over mutual TLS.

    python benchmarks/many_sites.py                          # 2,000 sites, rounds of 200 of them
    python benchmarks/many_sites.py --sites 300 --active 50
    python benchmarks/many_sites.py --sites 20 --active 20 --silent 1000 --idle 2000

The server's end of the link runs in this process, as the daemon starts it; the sites are asyncio clients in
one other process, each with a certificate and a TLS connection of its own. A round sends one envelope to
every active site, which downloads it and uploads a signed reply of the same size.

``--silent``: Connect calls of one enrolled site on which it never says a word, opened again as they end.
``--idle``: TCP connections that say nothing, opened again as they are cut.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.identity import keys
from fedft.identity.authority import Authority
from fedft.identity.keys import node_id
from fedft.identity.registry import MemberRecord, Registry
from fedft.server.daemon import raise_descriptor_limit, serve_link
from fedft.server.settings import ServerLimits, ServerSettings, initialise
from fedft.transport import tls
from fedft.transport.broker import Broker, Outgoing
from fedft.transport.open_calls import OpenCalls
from fedft.transport.service import LINK_VERSION, LinkService
from fedft.transport.upload_store import UploadStore
from fedft.wire import Refusal, RoundRef, encode_reply, seal
from fedft.wire.v1 import link_pb2 as pb
from fedft.wire.v1.link_pb2_grpc import LinkStub

SILENCE = 30.0


class Server:
    """The server's end of the link with so many enrolled sites, each with its files in ``folder``."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        limits = ServerLimits(max_clients=2 * len(names) + 10, silence_seconds=SILENCE)
        address = {"hosts": ("localhost", "127.0.0.1"), "link": "127.0.0.1:0"}
        self.settings = ServerSettings(**address, limits=limits, folder=folder / "server")
        initialise(self.settings)
        registry = Registry(self.settings.folder / "server.sqlite")
        registry._database.execute("PRAGMA synchronous = OFF")  # thousands are enrolled here in a moment
        authority = Authority(self.settings.folder / "ca")
        self.nodes = {name: _enrol(registry, authority, folder, name) for name in names}
        self.board, self.registry = Broker(limits.silence_seconds, limits.max_clients), registry
        inbox = UploadStore(folder / "inbox", limits.max_upload_bytes)
        service = LinkService(self.board, registry, inbox, OpenCalls())
        self.running, self.port = serve_link(self.settings, service)

    def round(self, number: int, names: list[str], envelope: bytes, seconds: float = 120.0) -> list[float]:
        """Send an envelope to sites and return after how many seconds each reply was there."""
        digest, start = hashlib.sha256(envelope).hexdigest(), time.monotonic()
        nodes = {f"{number}-{name}": self.nodes[name] for name in names}
        self.board.send(
            [
                Outgoing(key, "train", "1", node, digest, envelope, start + seconds)
                for key, node in nodes.items()
            ]
        )
        waiting, times = set(nodes), list[float]()
        while waiting and time.monotonic() < start + seconds:
            found = self.board.collect(waiting, 1.0)
            times += [time.monotonic() - start] * len(found)
            waiting -= found.keys()
        return times


def _enrol(registry: Registry, authority: Authority, folder: Path, name: str) -> int:
    key, signing, place = keys.new_tls_key(), Ed25519PrivateKey.generate(), folder / name
    certificate = authority.issue(name, key.public_key())
    fingerprint = keys.fingerprint(certificate)
    public = keys.public_pem(signing.public_key()).decode()
    registry.enroll(MemberRecord(fingerprint, name, "client", public, "2026-01-01", "2027-01-01"))
    place.mkdir()
    (place / "key").write_bytes(keys.private_pem(key))
    (place / "signing").write_bytes(keys.private_pem(signing))
    (place / "certificate").write_bytes(keys.certificate_pem(certificate))
    return node_id(fingerprint)


# -- the sites, in a process of their own ------------------------------------------------------------------


async def _site(folder: Path, name: str, port: int, size: int, told: dict[str, int]) -> None:
    """Keep one site connected, and answer whatever it is asked."""
    channel = _channel(folder, name, port)
    stub, signing = LinkStub(channel), keys.load_signing_key(folder / name / "signing")
    reply = encode_reply(Refusal(RoundRef("run", 1), "FEDFT-7010", "x", name))
    while True:
        try:
            async for signal in stub.Connect(_beats()):
                told["connected"] += signal.HasField("accepted")
                if signal.HasField("work"):
                    async for _ in stub.Download(pb.DownloadRequest(digest=signal.work.digest)):
                        pass
                    await _upload(stub, signal.work.message_id, seal(reply, signing), size)
        except grpc.aio.AioRpcError as error:
            told["refused"] += 1
            told["last"] = f"{error.code().name} {error.details()}"[:200]  # type: ignore[assignment]
        await asyncio.sleep(1.0)


async def _upload(stub: Any, message_id: str, envelope: bytes, size: int) -> None:
    header = pb.UploadHeader(
        message_id=message_id, digest=hashlib.sha256(envelope).digest(), size=len(envelope)
    )

    async def parts() -> AsyncIterator[Any]:
        yield pb.UploadPart(header=header)
        yield pb.UploadPart(chunk=pb.Chunk(data=envelope))

    await stub.Offer(header)
    await stub.Upload(parts())


async def _beats() -> AsyncIterator[Any]:
    start = pb.SessionStart(link_version=LINK_VERSION, instance=os.urandom(16))
    yield pb.ClientSignal(start=start)
    while True:
        await asyncio.sleep(SILENCE / 3)
        yield pb.ClientSignal(heartbeat=pb.Heartbeat())


async def _silent(folder: Path, port: int, told: dict[str, int]) -> None:
    """Open a call of one enrolled site and say nothing, again and again."""
    stub = LinkStub(_channel(folder, "hostile", port))

    async def nothing() -> AsyncIterator[Any]:
        await asyncio.sleep(3600)
        yield pb.ClientSignal()

    while True:
        try:
            async for _ in stub.Connect(nothing()):
                pass
        except grpc.aio.AioRpcError:
            told["silent calls ended"] += 1
        await asyncio.sleep(0.5)


async def _idle(port: int, told: dict[str, int]) -> None:
    """Hold a TCP connection on which no certificate comes."""
    while True:
        try:
            reader, _ = await asyncio.open_connection("127.0.0.1", port)
            await reader.read()
            told["idle connections cut"] += 1
        except OSError:
            told["idle connections refused"] += 1
        await asyncio.sleep(0.5)


def _channel(folder: Path, name: str, port: int) -> grpc.aio.Channel:
    files = [folder / "server" / "ca" / "ca.crt", folder / name / "key", folder / name / "certificate"]
    credentials = grpc.ssl_channel_credentials(*(path.read_bytes() for path in files))
    return grpc.aio.secure_channel(
        f"localhost:{port}", credentials, options=[*tls._COMMON, *tls._CHANNEL, ("grpc.name", name)]
    )


def _sites(folder: str, names: list[str], port: int, size: int, silent: int, idle: int, told: Any) -> None:
    raise_descriptor_limit()
    counts: dict[str, int] = {"connected": 0, "refused": 0, "silent calls ended": 0, "last": 0}
    counts |= {"idle connections cut": 0, "idle connections refused": 0}

    async def tell() -> None:
        while True:
            told.update(counts)
            await asyncio.sleep(0.5)

    async def all_of_them() -> None:
        place, tasks = Path(folder), [asyncio.create_task(tell())]
        tasks += [asyncio.create_task(_idle(port, counts)) for _ in range(idle)]
        tasks += [asyncio.create_task(_silent(place, port, counts)) for _ in range(silent)]
        for name in names:
            tasks.append(asyncio.create_task(_site(place, name, port, size, counts)))
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())


# -- measuring ---------------------------------------------------------------------------------------------


def _resident() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def _cpu() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Connect, rest, and carry out rounds; return the figures."""
    raise_descriptor_limit()
    names = [f"site-{index:04d}" for index in range(arguments.sites)]
    server = Server(folder, [*names, "hostile"])
    before = _resident()
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        told = manager.dict()
        size = arguments.size << 10
        parameters = (str(folder), names, server.port, size, arguments.silent, arguments.idle, told)
        child = context.Process(target=_sites, args=parameters, daemon=True)
        child.start()
        while not told:
            time.sleep(0.1)
        start = time.monotonic()
        while len(server.board.nodes()) < len(names) and time.monotonic() < start + arguments.patience:
            time.sleep(0.1)
        found: dict[str, Any] = {
            "sites connected": len(server.board.nodes()),
            "seconds until they were": time.monotonic() - start,
            "MiB of the server before": before,
            "MiB of the server with them": _resident(),
            "threads": threading.active_count(),
        }
        time.sleep(5.0)
        cpu, since = _cpu(), time.monotonic()
        time.sleep(arguments.rest)
        found["share of one core at rest"] = (_cpu() - cpu) / (time.monotonic() - since)
        found["sites after the rest"] = len(server.board.nodes())
        for number in range(arguments.rounds):
            active = names[: arguments.active]
            times = server.round(number, active, os.urandom(size))
            found[f"round {number}"] = {
                "replies": len(times),
                "median": statistics.median(times or [0]),
                "last": max(times, default=0.0),
            }
        one = [max(server.round(100 + i, [names[i]], os.urandom(1 << 10)), default=120.0) for i in range(20)]
        found["one site's small round, median"] = statistics.median(one)
        found["MiB of the server at the end"] = _resident()
        found["the sites' side"] = dict(told)
        found["incidents"] = len(server.registry.incidents())
        child.kill()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, default=2000)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--size", type=int, default=256, help="KiB of an instruction")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rest", type=float, default=20.0, help="seconds at rest")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds until all must be connected")
    parser.add_argument("--silent", type=int, default=0)
    parser.add_argument("--idle", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        print(json.dumps(measure(arguments, Path(folder)), indent=2), flush=True)
        os._exit(0)  # threads of thousands of streams are not waited for


if __name__ == "__main__":
    main()
