"""What goes wrong in a soak, and when: decided by a seed, kept as a file where a soak has failed."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

KINDS = (
    "kill-server",
    "kill-daemon",
    "kill-worker",
    "cut",
    "slow",
    "full-server",
    "full-site",
    "clock-server",
    "clock-site",
)
_CLOCKS = (-1800.0, 1800.0, 5 * 86_400.0)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        after: the committed round after which it happens.
        kind: one of ``KINDS``.
        site: whom it meets, counted from 0; the server's kinds do not look at it.
        wait: seconds after that round's commit.
        seconds: how long it lasts, where it lasts.
        jump: seconds by which a clock is wrong meanwhile.

    """

    after: int
    kind: str
    site: int
    wait: float
    seconds: float
    jump: float


@dataclass(frozen=True)
class Schedule:
    """The faults of one run of ``rounds`` rounds with ``sites`` sites, in their order."""

    seed: int
    rounds: int
    sites: int
    faults: tuple[Fault, ...]

    @classmethod
    def drawn(cls, seed: int, rounds: int, sites: int, every: float) -> Schedule:
        """Draw one fault for each ``every`` rounds in the mean, none in the last two rounds."""
        rng = random.Random(seed)
        chance = min(1.0, 1 / every)
        faults = tuple(
            Fault(
                after,
                rng.choice(KINDS),
                rng.randrange(sites),
                round(rng.uniform(0.0, 1.0), 3),
                round(rng.uniform(0.5, 5.0), 3),
                rng.choice(_CLOCKS),
            )
            for after in range(max(0, rounds - 2))
            if rng.random() < chance
        )
        return cls(seed, rounds, sites, faults)

    @classmethod
    def read(cls, path: Path) -> Schedule:
        """Read what ``write`` wrote."""
        values = json.loads(path.read_text("utf-8"))
        return cls(**{**values, "faults": tuple(Fault(**fault) for fault in values["faults"])})

    def write(self, path: Path) -> None:
        """Keep it for the tests."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
