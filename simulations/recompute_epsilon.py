"""Recompute epsilon from what was released, with dp-accounting alone.

    python simulations/recompute_epsilon.py FILE ... [--delta 1e-5]

A FILE is a ledger (`ledger.sqlite`), or the JSON rows of an experiment, whose rows list what one site has
released (`released`) beside the epsilon that they claim (`spent`). Nothing of fedft takes part: events are
read as they were written down, composed as privacy loss distributions, and compared with what is claimed.
The exit status is 1 where a claim is below what was released.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dp_accounting import (
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant

Release = Mapping[str, Any]


def epsilon_of(released: Iterable[Release], delta: float) -> float:
    """Return epsilon at delta of releases, each with noise_multiplier, sample_rate and steps."""
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    counted: dict[tuple[float, float], int] = {}
    for release in released:
        kind = release["noise_multiplier"], release.get("sample_rate", 1.0)
        counted[kind] = counted.get(kind, 0) + release.get("steps", 1)
    for (noise, rate), steps in sorted(counted.items()):
        accountant.compose(_event(noise, rate, steps))
    return float(accountant.get_epsilon(delta))


def _event(noise: float, rate: float, steps: int) -> DpEvent:
    if rate == 1:  # exactly one Gaussian release: 1/s^2 = T/s_step^2
        return GaussianDpEvent(noise / steps**0.5)
    return SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)


def ledger_releases(path: Path) -> dict[str, list[Release]]:
    """Return what a ledger says was released from each data set."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        bodies = [json.loads(body) for (body,) in connection.execute("SELECT body FROM entries")]
    found: dict[str, list[Release]] = {}
    for body in bodies:
        if body["kind"] == "charge":
            found.setdefault(body["dataset"], []).append(body["event"])
    return found


def rows_hold(path: Path, delta: float) -> bool:
    """Print the rows that released more than they were given or claim; return whether there is none."""
    rows = [row for row in json.loads(path.read_text()) if row.get("released")]
    known: dict[str, float] = {}
    worst, above = 0.0, 0
    for row in rows:
        key = json.dumps(row["released"], sort_keys=True)
        found = known[key] = known[key] if key in known else epsilon_of(row["released"], delta)
        worst = max(worst, abs(found - row["spent"]))
        if found > row["epsilon"] or found > row["spent"] * (1 + 1e-3):
            above += 1
            print(
                f"{path}: {found:.5f} is above epsilon {row['epsilon']:g}, claimed {row['spent']:.5f}: {row}"
            )
    print(f"{path}: {len(rows)} rows, {above} above; largest difference to the claim {worst:.2g}")
    return not above


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--delta", type=float, default=1e-5)
    arguments = parser.parse_args()
    held = True
    for path in arguments.files:
        if path.suffix == ".json":
            held &= rows_hold(path, arguments.delta)
            continue
        for dataset, released in ledger_releases(path).items():
            epsilon = epsilon_of(released, arguments.delta)
            print(f"{path}: {dataset}, {len(released)} charges, epsilon {epsilon:.5f}")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
