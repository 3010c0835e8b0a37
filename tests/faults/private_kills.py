"""A private run that is killed at random moments and started again, many times: python -m … FOLDER KILLS SEED

The children are forked from this process, which has imported everything, so that a start takes no seconds.
What leaves a client is noted by a wrapper around the product's own client; after every kill each client's
ledger must be whole and hold a charge for every release. Prints a summary as JSON; any violation is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fedft.client.app import app
from fedft.client.worker.answer import process_worker
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.privacy.site.ledger import Ledger
from fedft.store import RunStore
from fedft.transport.flower_records import unpack
from fedft.wire import Update, decode_reply, open_envelope
from tests.federation import run_inline, tiny_config

SETTINGS = {
    "privacy.mechanism": "example",
    "privacy.noise_multiplier": 1.0,
    "privacy.epsilon": 1000.0,
    "privacy.delta": 1e-3,
    "rounds.weighting": "uniform",
    "rounds.total": 5,
    "evaluation.every": 0,
}


def main(folder: Path, kills: int, seed: int) -> None:
    os.environ |= {"XDG_DATA_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")}
    config = tiny_config(folder, **SETTINGS)
    rng = random.Random(seed)
    whole = _attempt(config, folder, None)[1]
    killed, most = 0, 0
    while killed < kills:
        finished, _ = _attempt(config, folder, rng.uniform(0, whole))
        killed += not finished
        most = max(most, _check(folder))
    while not _attempt(config, folder, None)[0]:
        pass
    _check(folder)
    released, charged = _released(folder), _charged(folder)
    runs = [run.status for run in RunStore(config.store.path).runs()]
    summary = {"kills": killed, "runs": len(runs), "completed": runs.count("completed")}
    summary |= {"released": sum(map(len, released.values())), "charged": sum(charged.values())}
    print(json.dumps(summary | {"most_unreleased_at_once": most}))


def _attempt(config: RunConfig, folder: Path, kill_after: float | None) -> tuple[bool, float]:
    """Run until the end or the kill; return whether it ended by itself, and the seconds."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _carry_on(config, folder)
            status = 0
        finally:
            os._exit(status)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"the run failed by itself: {status}")
            return True, time.monotonic() - start
        if kill_after is not None and time.monotonic() - start > kill_after:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False, time.monotonic() - start
        time.sleep(0.002)


def _carry_on(config: RunConfig, folder: Path) -> None:
    """Go on with the run that was killed, or begin another one."""
    process_worker.cache_clear()
    store = RunStore(config.store.path)
    runs = [run for run in store.runs() if run.status != "completed"]
    run = runs[-1] if runs else store.create_run(config.name, to_json(config))
    log = os.open(folder / "released.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def client(message: Any, context: Any) -> Any:
        reply = app(message, context)
        update = decode_reply(open_envelope(unpack(reply.content), max_bytes=1 << 30))
        if isinstance(update, Update):
            digest = hashlib.sha256(unpack(reply.content)).hexdigest()
            line = [update.round.run_id, update.client_id, update.round.round, digest]
            os.write(log, json.dumps(line).encode() + b"\n")
            os.fsync(log)
        return reply

    run_inline(config, client_app=client, store=store, run=run)


def _check(folder: Path) -> int:
    """Compare what was released with the ledgers; return how many charges were never released."""
    released, charged = _released(folder), _charged(folder)
    for key, digests in released.items():
        if charged[key] < len(digests):
            raise SystemExit(f"{key}: {len(digests)} releases, {charged[key]} charges")
    return sum(charged.values()) - sum(map(len, released.values()))


def _released(folder: Path) -> dict[tuple[str, str, int], set[str]]:
    found: dict[tuple[str, str, int], set[str]] = {}
    path = folder / "released.log"
    for line in path.read_text().splitlines() if path.exists() else ():
        run, client, number, digest = json.loads(line)
        found.setdefault((run, client, number), set()).add(digest)
    return found


def _charged(folder: Path) -> Counter[tuple[str, str, int]]:
    """Count the charges of all ledgers; opening one verifies it."""
    found: Counter[tuple[str, str, int]] = Counter()
    for path in sorted((folder / "state" / "fedft" / "ledgers").glob("*/[!.]*/ledger.sqlite")):
        for entry in Ledger(path).entries():
            if entry.body["kind"] == "charge":
                found[entry.body["run"], path.parent.name, entry.body["round"]] += 1
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
