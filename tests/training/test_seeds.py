from __future__ import annotations

import hashlib

import torch

from fedft.training.seeds import derive_seed, generator


def test_a_seed_is_the_digest_that_is_documented() -> None:
    """Pinned: other software may have to derive the same seed."""
    text = b"fedft seed" + b"int 2 17" + b"str 5 round" + b"int 1 3"
    expected = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
    assert derive_seed(17, "round", 3) == expected
    assert 0 <= expected < 2**63


def test_different_parts_give_different_seeds() -> None:
    lists: list[tuple[int, *tuple[int | str, ...]]] = [
        (1,),
        (1, "a"),
        (1, "a", "b"),
        (1, "ab"),
        (1, 1),
        (1, "1"),
        (11,),
        (1, "a", 1),
        (1, "", ""),
    ]
    assert len({derive_seed(*parts) for parts in lists}) == len(lists)


def test_a_generator_repeats_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    first, again = (torch.rand(3, generator=generator(1, "x")) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
