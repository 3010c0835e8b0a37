"""Seeds for every use, derived from the run's one seed."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(run_seed: int, *parts: str | int) -> int:
    """A 63-bit seed for the use that ``parts`` name, e.g. ``derive_seed(17, "shuffle", 3, "client-2")``.

    SHA-256 over the parts, each with its type and length, so that different parts give unrelated seeds
    and no two lists of parts run together. Not for privacy noise, which comes from a secure source.
    """
    digest = hashlib.sha256(b"fedft seed")
    for part in (run_seed, *parts):
        text = str(part).encode()
        digest.update(f"{type(part).__name__} {len(text)} ".encode() + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def generator(run_seed: int, *parts: str | int) -> torch.Generator:
    """A CPU generator of its own, seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(run_seed, *parts))
