"""A long run under a seeded schedule of kills, cuts, full disks, clock jumps and slow lines.

    make soak SOAK="--rounds 500 --minutes 60"

Five sites and a server as processes on this machine; it takes root, for disks that can be full. First a
private run of a tenth of the rounds: every release must stand in its site's ledger, and the ledgers verify.
Then the run itself: every committed state must have the digest of an undisturbed run's, and memory and disk
must stay flat. A schedule that finds something is kept in tests/soak/schedules, and the tests try it from
then on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedft.client.worker.answer import process_worker
from fedft.config import RunConfig
from fedft.coordinator.events import RoundCommitted
from fedft.store import RunStore
from tests.federation import run_inline, tiny_config
from tests.soak.schedule import Schedule
from tests.soak.usage import Usage, growing
from tests.soak.world import World

KEPT = Path(__file__).parent / "schedules"
DELTA = 1e-3
PLAIN: dict[str, Any] = {
    "training.steps": 1,
    "evaluation.every": 0,
    "rounds.deadline": 900.0,
    "store.keep_states": 5,
}
PRIVATE = PLAIN | {
    "privacy.mechanism": "example",
    "privacy.epsilon": 1000.0,
    "privacy.delta": DELTA,
    "privacy.noise_multiplier": 2.0,
    "rounds.weighting": "uniform",
}


@dataclass
class Outcome:
    """What a soak saw."""

    rounds: int = 0
    finished: bool = False
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    revived: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)


def config_of(folder: Path, schedule: Schedule, *, private: bool) -> RunConfig:
    """Every round needs every site, so that what is lost is repeated and no state is missing a part."""
    sites = schedule.sites
    return tiny_config(
        folder,
        **(PRIVATE if private else PLAIN),
        **{
            "data.partition.clients": sites,
            "rounds.total": schedule.rounds,
            "rounds.min_replies": sites,
        },
    )


def soak(folder: Path, schedule: Schedule, *, private: bool = False, minutes: float = 1e6) -> Outcome:
    """Carry a run out under a schedule, for so many minutes at most, and check what came of it."""
    outcome, start = Outcome(), time.monotonic()
    end = start + 60 * minutes
    config = config_of(folder, schedule, private=private)
    budget = (1e6, DELTA) if private else None
    with World(folder / ("private" if private else "plain"), schedule.sites, budget=budget) as world:
        if private:
            world.init_ledgers(config)
        world.start()
        run = world.start_run(config)
        with Usage(world, lambda: world.committed(run)) as usage:
            _carry_out(world, run, schedule, outcome, end)
        outcome.usage = usage.summary()
        outcome.rounds = max(0, world.committed(run))
        outcome.finished = outcome.rounds == schedule.rounds
        outcome.seconds = round(time.monotonic() - start)
        if not outcome.finished and time.monotonic() < end:
            outcome.violations.append(f"stands still after round {outcome.rounds}: {world.logs()}")
        outcome.violations += (
            _unaccounted(world, run) if private else _other_states(world, run, config, folder)
        )
    outcome.violations += growing(outcome.usage)
    return outcome


def _carry_out(world: World, run: str, schedule: Schedule, outcome: Outcome, end: float) -> None:
    for fault in schedule.faults:
        if not _reach(world, run, fault.after, outcome, end):
            return
        time.sleep(fault.wait)
        world.strike(fault)
        outcome.faults[fault.kind] += 1
    _reach(world, run, schedule.rounds, outcome, end)


def _reach(
    world: World, run: str, number: int, outcome: Outcome, end: float, patience: float = 600.0
) -> bool:
    """Wait for a committed round; False when time is over, or when nothing is committed for long."""
    last, since, shown = -1, time.monotonic(), 0
    while time.monotonic() < end:
        outcome.revived += world.revive()
        committed = world.committed(run)
        if committed >= number:
            return True
        if committed > last:
            last, since = committed, time.monotonic()
        if committed >= shown + 10:
            shown = committed
            print(f"round {committed}, faults {sum(outcome.faults.values())}", file=sys.stderr, flush=True)
        if time.monotonic() - since > patience:
            return False
        time.sleep(0.1)
    return False


def _other_states(world: World, run: str, config: RunConfig, folder: Path) -> list[str]:
    """Compare every committed state's digest with that of a run in this process, without any fault."""
    found = RunStore(world.settings.store_folder).rounds(run)
    expected = _undisturbed(config, folder, len(found))
    return [
        f"round {item.round} has state {item.state_digest[:16]}, undisturbed {expected[item.round][:16]}"
        for item in found
        if item.state_digest != expected[item.round]
    ]


def _undisturbed(config: RunConfig, folder: Path, rounds: int) -> dict[int, str]:
    """Return the state digests of a run's first rounds, round 0 among them."""
    expected: dict[int, str] = {}

    def observe(event: object) -> None:
        if isinstance(event, RoundCommitted):
            expected[event.record.round] = event.record.state_digest
            if len(expected) == rounds:
                raise KeyboardInterrupt

    os.environ["XDG_CACHE_HOME"] = str(folder / "inline-cache")
    process_worker.cache_clear()
    with contextlib.suppress(KeyboardInterrupt):
        run_inline(config, store=RunStore(folder / "undisturbed"), observe=observe)
    return expected


def _unaccounted(world: World, run: str) -> list[str]:
    """Return the releases that no ledger has charged; opening a ledger verifies it."""
    charged = {
        (name, entry.body["round"])
        for name in world.names
        for entry in world.ledger(name).entries()
        if entry.body["kind"] == "charge"
    }
    released = {
        (update.client, record.round)
        for record in RunStore(world.settings.store_folder).rounds(run)[1:]
        for update in record.updates
        if update.status == "accepted"
    }
    if not released:
        return ["nothing was released"]
    return [f"{client} released round {number} uncharged" for client, number in sorted(released - charged)]


def main() -> int:
    arguments = _arguments()
    if not arguments.inside:
        os.execvp(
            "unshare", ["unshare", "-m", sys.executable, "-m", "tests.soak.run", *sys.argv[1:], "--inside"]
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, which ends what was started
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    failed = False
    for kind, schedule in _schedules(arguments):
        private = kind == "private"
        outcome = soak(folder, schedule, private=private, minutes=arguments.minutes)
        print(
            json.dumps({"run": kind, "seed": schedule.seed, "asked": schedule.rounds, **vars(outcome)}),
            flush=True,
        )
        if outcome.violations:
            failed = True
            schedule.write(KEPT / f"{kind}-{schedule.seed}.json")
    return int(failed)


def _schedules(arguments: argparse.Namespace) -> Iterator[tuple[str, Schedule]]:
    """Yield the kind and the schedule of each run."""
    if arguments.schedule is not None:
        yield arguments.schedule.stem.partition("-")[0], Schedule.read(arguments.schedule)
        return
    for kind in arguments.runs:
        private = kind == "private"
        rounds = arguments.rounds // 10 if private else arguments.rounds
        yield kind, Schedule.drawn(arguments.seed + private, rounds, arguments.sites, arguments.every)


def _arguments() -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--every", type=float, default=10.0, help="rounds for each fault, in the mean")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="most minutes for each of the two runs")
    parser.add_argument("--runs", nargs="+", choices=["private", "plain"], default=["private", "plain"])
    parser.add_argument("--schedule", type=Path, help="a kept schedule, in place of drawn ones")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
