"""Generated arithmetic problems: what the demo model was trained on, and what the demo's clients hold.

The demo model has seen the families of `BARE` and `NOISY`. The clients' families, `STORIES`, need the same
arithmetic behind words that the model has never read, so that there is something to learn. A problem
belongs to the split that a hash of its text names: no test or public problem is ever a training problem.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

Split = Literal["train", "test", "public"]
Record = dict[str, str]
Family = Callable[[np.random.Generator], tuple[str, int]]

NUMBERS = range(10, 50)
"""The numbers in problems: all have two digits, and so have their sums."""

LETTERS = string.ascii_lowercase
MARKS = ("", "", "", "", "", ",", "'s")
NAMES = ("Ann", "Ben", "Eva", "Ivo", "Lea", "Max", "Noa", "Tim")
_SHARES: Mapping[Split, range] = {"test": range(0, 3), "public": range(3, 5), "train": range(5, 10)}


def _number(rng: np.random.Generator) -> int:
    return int(rng.integers(NUMBERS.start, NUMBERS.stop))


def _name(rng: np.random.Generator) -> str:
    return NAMES[int(rng.integers(len(NAMES)))]


def _sum(template: str) -> Family:
    """A problem whose answer is {a} + {b}."""

    def problem(rng: np.random.Generator) -> tuple[str, int]:
        a, b = _number(rng), _number(rng)
        return template.format(a=a, b=b, name=_name(rng)), a + b

    return problem


def _difference(template: str) -> Family:
    """A problem whose answer is {a} - {b}, which is not negative."""

    def problem(rng: np.random.Generator) -> tuple[str, int]:
        b, a = sorted([_number(rng), _number(rng)])
        return template.format(a=a, b=b, name=_name(rng)), a - b

    return problem


def _chosen(template: str, choose: Callable[[list[int]], int]) -> Family:
    """A problem whose answer is one of three numbers, {a}, {b} and {c}."""

    def problem(rng: np.random.Generator) -> tuple[str, int]:
        numbers = [_number(rng) for _ in range(3)]
        a, b, c = numbers
        return template.format(a=a, b=b, c=c, name=_name(rng)), choose(numbers)

    return problem


def _noisy(operation: str, count: int, answer: Callable[[list[int]], int]) -> Family:
    """Numbers among random words, the operation named at the end: "Kuv oot 31 pa, 14 lirr. plus?"."""

    def problem(rng: np.random.Generator) -> tuple[str, int]:
        numbers = [_number(rng) for _ in range(count)]
        words = [f"{_nonsense(rng)} {number}" for number in numbers] + [_nonsense(rng)]
        return f"{' '.join(words).capitalize()}. {operation}?", answer(numbers)

    return problem


def _nonsense(rng: np.random.Generator) -> str:
    """One or two random words of two to six letters, now and then with a mark after one."""
    sizes = rng.integers(2, 7, size=int(rng.integers(1, 3)))
    words = ("".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=size)) for size in sizes)
    return " ".join(word + MARKS[rng.integers(len(MARKS))] for word in words)


BARE: Mapping[str, Family] = {
    "plus": _sum("{a}+{b}="),
    "minus": _difference("{a}-{b}="),
    "max": _chosen("max {a} {b} {c}=", max),
    "min": _chosen("min {a} {b} {c}=", min),
}
"""Four operations without a word, which the demo model was trained on."""

NOISY: Mapping[str, Family] = {
    "noisy plus": _noisy("plus", 2, sum),
    "noisy minus": _noisy("minus", 2, lambda numbers: max(numbers) - min(numbers)),
    "noisy max": _noisy("max", 3, max),
    "noisy min": _noisy("min", 3, min),
}
"""The same among words that mean nothing, which the demo model was trained on too."""

STORIES: Mapping[str, Family] = {
    "age": _difference("{name} is {a}. A cousin is {b}. Age gap?"),
    "bakery": _difference("A baker had {a} buns and sold {b}. Buns left?"),
    "bus": _sum("A bus has {a} riders. {b} get on. Riders now?"),
    "change": _difference("A toy costs {b}. {name} pays {a}. Change?"),
    "library": _sum("{b} books came back to {name}'s {a}. Books now?"),
    "orchard": _sum("Rows of {a} and {b} trees. How many trees?"),
    "race": _chosen("{name} ran {a}, {b} and {c} laps. Best day?", max),
    "shop": _chosen("Hats cost {a}, {b} or {c}. Cheapest hat?", min),
}
"""What the demo's clients hold, two families each."""


def split_of(prompt: str) -> Split:
    """The one split that a problem belongs to, by a hash of its text."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % 10
    return next(split for split, buckets in _SHARES.items() if bucket in buckets)


def generate(families: Mapping[str, Family], split: Split, per_family: int, seed: int) -> list[Record]:
    """Make ``per_family`` problems of each family, all of one split.

    The same arguments give the same problems; a problem may repeat within a split, as in a sample
    drawn with replacement.
    """
    records = []
    for index, (name, family) in enumerate(sorted(families.items())):
        rng = np.random.default_rng([seed, index])
        kept = 0
        while kept < per_family:
            prompt, answer = family(rng)
            if split_of(prompt) == split:
                records.append({"prompt": prompt, "completion": f" {answer}", "family": name})
                kept += 1
    return records
