"""Mutate golden envelopes many times, under a cap on memory.

    python -m tests.fuzz.mutate --count 1000000 --extra-mib 64

Every mutant is read as it is (its hash is then almost always wrong) and again with what is inside its
payload decoded whatever the hash says. Prints one line of JSON; the exit status says whether all held.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.fuzz.target import check_content, check_envelope

GOLDEN = Path(__file__).resolve().parent.parent / "wire" / "golden" / "v1"
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def mutants(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(1 + rng.geometric(0.5)):
            _mutate(data, seeds, rng)
        yield bytes(data)


def _mutate(data: bytearray, seeds: list[bytes], rng: np.random.Generator) -> None:
    if not data:
        data += b"\0"
    # Half of all changes go to the head, where the structure is; blobs are long.
    at = int(rng.integers(min(len(data), 300) if rng.random() < 0.5 else len(data)))
    length = int(rng.integers(1, 9))
    kind = rng.integers(7)
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[at] = _INTERESTING[rng.integers(len(_INTERESTING))]
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = rng.bytes(length)
    elif kind == 4:
        data[at : at + length] = data[-length:]
    elif kind == 5:
        del data[at:]
    else:
        other = seeds[rng.integers(len(seeds))]
        start = int(rng.integers(len(other)))
        data[at : at + 4 * length] = other[start : start + 4 * length]


def run(count: int, seed: int, extra_mib: int) -> dict[str, int]:
    seeds = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]
    check = [check_content(data) for data in seeds]
    if sum(check) < 7 or not all(check_envelope(data) for data in seeds):
        raise SystemExit("the seeds themselves do not decode")
    before = _peak_mib()
    _cap_memory(extra_mib)
    result = {"mutants": 0, "accepted_envelopes": 0, "summed_updates": 0}
    for data in mutants(seeds, count, seed):
        result["mutants"] += 1
        result["accepted_envelopes"] += check_envelope(data)
        result["summed_updates"] += check_content(data)
    return result | {"peak_rss_growth_mib": _peak_mib() - before, "extra_mib_allowed": extra_mib}


def _cap_memory(extra_mib: int) -> None:
    """Allocations beyond this raise MemoryError, which nothing catches."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (extra_mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--extra-mib", type=int, default=64)
    args = parser.parse_args()
    print(json.dumps(run(args.count, args.seed, args.extra_mib)))


if __name__ == "__main__":
    main()
