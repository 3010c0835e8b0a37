"""What the gRPC link costs: throughput and memory of a large transfer, and the overhead of a round.

    python benchmarks/link.py transfer              # 1 GiB down and 256 MiB up over mutual TLS, loopback
    python benchmarks/link.py rounds --rounds 11    # real server and two daemons, tiny model
    python benchmarks/link.py superlink --rounds 4  # the same run over Flower's SuperLink and SuperNodes

`transfer` runs the site in a process of its own, so that its memory can be told from the server's.
`rounds` and `superlink` print, for each round after the first, the round's seconds minus the slowest client's
training as the client timed it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def transfer(size: int, up: int) -> dict[str, float]:
    from fedft.transport.broker import Outgoing
    from tests.transport.conftest import Server

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        server = Server(Path(folder))
        server.inbox.max_bytes = 2 * up + (1 << 20)
        site = server.site()
        node = site.node
        payload = os.urandom(1 << 20) * (size >> 20)
        import hashlib

        digest = hashlib.sha256(payload).hexdigest()
        message = Outgoing("m", "train", "1", node, digest, payload, time.monotonic() + 600)
        server.board.send([message])
        context = multiprocessing.get_context("spawn")
        results = context.SimpleQueue()
        child = context.Process(
            target=_site, args=(str(site.config.folder), server.port, digest, size, up, results)
        )
        child.start()
        found = results.get()
        child.join()
        server.close()
    return found


def _site(folder: str, port: int, digest: str, size: int, up: int, results) -> None:
    import resource
    import threading

    from fedft.client.site.config import load_site
    from fedft.identity.keys import load_signing_key
    from fedft.transport.client import LinkClient
    from fedft.wire import seal
    from tests.transport.test_transfer import _update

    site = load_site(Path(folder) / "site.toml")
    link = LinkClient(site.tls, f"localhost:{port}", threading.Event())
    threading.Thread(target=link.keep_session, args=(lambda _: None,) * 4, daemon=True).start()
    time.sleep(1.0)

    def resident() -> float:
        # Not ru_maxrss: that begins with the largest size of the process which this one was forked from.
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    before = resident()
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    start = time.monotonic()
    link.download(digest, size, Path(folder) / "cache" / "blob", 600)
    down = time.monotonic() - start
    memory = resident() - before
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu
    payload = seal(_update(up), load_signing_key(Path(folder) / "signing.key"))
    start = time.monotonic()
    link.upload("m", payload, 600)
    results.put(
        {
            "download_mb_per_s": size / 1e6 / down,
            "download_memory_mib": memory,
            "download_cpu_s": cpu,
            "upload_mb_per_s": len(payload) / 1e6 / (time.monotonic() - start),
        }
    )


def rounds(count: int, sites: int) -> dict[str, object]:
    from tests.deployment import Deployment

    with (
        tempfile.TemporaryDirectory() as folder,
        Deployment(Path(folder) / "deployment", sites).start() as deployment,
    ):
        found = deployment.wait_complete(deployment.start_run(_config(folder, count, sites)), 600)
    return _overheads(
        (record["seconds"], [update["metrics"]["seconds"] for update in record["updates"]])
        for record in found["committed"][2:]
    )


def superlink(count: int, sites: int) -> dict[str, object]:
    from fedft.config.render import to_toml
    from fedft.store import RunStore
    from tests.superlink import SuperLink

    with tempfile.TemporaryDirectory() as folder:
        file, store = Path(folder) / "run.toml", Path(folder) / "store"
        file.write_text(to_toml(_config(folder, count, sites)))
        environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        with SuperLink(Path(folder) / "superlink", environment, sites) as deployment:
            deployment.run(f'config="{file}" store.path="{store}"')
        kept = RunStore(store)
        records = kept.rounds(kept.run("latest").id)
    return _overheads((r.seconds, [update.metrics["seconds"] for update in r.updates]) for r in records[2:])


def _config(folder: str, count: int, sites: int) -> Any:
    from tests.federation import tiny_config

    settings = {"rounds.total": count, "evaluation.every": 0, "data.partition.clients": sites}
    return tiny_config(Path(folder), **settings)


def _overheads(rounds: Iterable[tuple[float, list[float]]]) -> dict[str, object]:
    overheads = [seconds - max(trained) for seconds, trained in rounds]
    return {"overhead_s": [round(x, 4) for x in overheads], "median_s": statistics.median(overheads)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["transfer", "rounds", "superlink"])
    parser.add_argument("--down", type=int, default=1 << 30)
    parser.add_argument("--up", type=int, default=256 << 20)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--sites", type=int, default=2)
    chosen = parser.parse_args()
    match chosen.what:
        case "transfer":
            result: dict[str, Any] = dict(transfer(chosen.down, chosen.up))
        case "rounds":
            result = rounds(chosen.rounds, chosen.sites)
        case "superlink":
            result = superlink(chosen.rounds, chosen.sites)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
