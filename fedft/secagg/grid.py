"""The integers that a round sums: updates on a grid whose steps are the same at every client.

Codes whose factor each client chooses do not add under masks. Here the server publishes the steps before the
round, made of values that are public already, and everything else follows from the integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedft.codecs import Manifest
from fedft.codecs.checks import finite_vector
from fedft.codecs.rotation import padded_size, rotate, unrotate
from fedft.errors import Code, FedftError
from fedft.secagg.binding import bind
from fedft.secagg.messages import Payload
from fedft.tensors import Arrays

MAX_WEIGHT = 1 << 20
MAX_STEP, MIN_STEP = 1e6, 1e-30


@dataclass(frozen=True)
class GridKind:
    """What is put on a grid and how finely.

    Attributes:
        name: as in a configuration.
        largest: largest digit: 2K for integers from -K to K, 1 for a sign.
        rotated: the update is rotated with the round's seed first, and all coordinates have one step.
        headroom: how far the grid reaches, over the root mean square that it is made for: near the least
            squared error of normal values, with room for heavier tails where there are many steps.

    """

    name: str
    largest: int
    rotated: bool = False
    headroom: float = 1.0


_KINDS = {
    kind.name: kind
    for kind in (
        GridKind("ternary", 2, headroom=1.25),
        GridKind("int4", 14, headroom=3.0),
        GridKind("int8", 254, headroom=8.0),
        GridKind("rotated1", 1, rotated=True),
    )
}


def grid_kind(name: str) -> GridKind:
    """Give a kind of grid; FEDFT-8826 when there is none, as for codes whose factor each client chooses."""
    if name not in _KINDS:
        raise FedftError(
            Code.GRID_INVALID,
            f"no shared grid is called {name!r}",
            hint=f"one of {', '.join(_KINDS)}; codes with factors of their own do not sum under masks",
        )
    return _KINDS[name]


@dataclass(frozen=True, eq=False)
class Grid:
    """Digit g of an element stands for ``step · (g - largest / 2)``.

    A client multiplies its update by weight / max_weight, puts it on the grid, and appends its weight in
    digits of the same base. The sum of all digits then gives the weighted mean, and the weights stay as
    hidden as the updates.

    Args:
        kind: how fine, and whether rotated.
        manifest: names and shapes of the exchanged tensors.
        steps: one for each tensor, for the rotated kind one in all; float32.
        max_weight: the largest weight of a client.
        positions: (k,) int64, ascending: the elements that travel, the same for all; None for all of them.
            They must come from values that are public or noised, never from one client's update.
        seed: of the round, for the rotated kind.

    Raises:
        FedftError: FEDFT-8826 when a value is out of range.

    """

    kind: GridKind
    manifest: Manifest
    steps: NDArray[np.float32]
    max_weight: int = 1
    positions: NDArray[np.int64] | None = None
    seed: bytes = b""

    def __post_init__(self) -> None:
        rotated = self.kind.rotated
        count = 1 if rotated else len(self.manifest.tensors)
        if self.steps.shape != (count,) or self.steps.dtype != np.float32:
            raise _invalid(f"steps are {self.steps.dtype}{list(self.steps.shape)}, expected float32[{count}]")
        if not bool(np.all((self.steps >= MIN_STEP) & (self.steps <= MAX_STEP))):
            raise _invalid(f"a step is not between {MIN_STEP:g} and {MAX_STEP:g}")
        if not 1 <= self.max_weight <= MAX_WEIGHT or rotated != bool(self.seed):
            raise _invalid(f"largest weight {self.max_weight}, seed of {len(self.seed)} bytes")
        if self.positions is not None and not self._are_positions(self.positions):
            raise _invalid("the positions are not ascending elements of the vector")

    @property
    def largest(self) -> int:
        """Largest digit."""
        return self.kind.largest

    @cached_property
    def coordinates(self) -> int:
        """Number of the update's digits."""
        return self._size if self.positions is None else int(self.positions.size)

    @cached_property
    def weight_digits(self) -> int:
        """Number of the weight's digits."""
        count = 1
        while (self.largest + 1) ** count <= self.max_weight:
            count += 1
        return count

    @cached_property
    def payload(self) -> Payload:
        """What client and server agree on for the round; it names every part of the grid."""
        positions = b"" if self.positions is None else self.positions.astype("<i8").tobytes()
        digest = bind(
            b"grid",
            self.kind.name.encode(),
            bytes.fromhex(self.manifest.digest()),
            self.steps.astype("<f4").tobytes(),
            self.max_weight,
            positions,
            self.seed,
        )
        return Payload(self.coordinates + self.weight_digits, self.largest, digest)

    def expect(self, payload: Payload) -> None:
        """Raise FEDFT-8827 unless a request is for this grid."""
        if payload != self.payload:
            raise FedftError(Code.GRID_MISMATCH, "the request is for another grid than the round's")

    def digits(
        self, update: Arrays, weight: int = 1, generator: np.random.Generator | None = None
    ) -> NDArray[np.int64]:
        """Put an update on the grid and append its weight; (payload.elements,).

        Args:
            update: named float32 arrays.
            weight: 1 to ``max_weight``.
            generator: rounds up or down at random, so that the grid's value is unbiased within its reach of
                ``largest / 2`` steps; None rounds to the nearest, for error feedback.

        Raises:
            FedftError: FEDFT-4015, 4016 (the update), FEDFT-8826 (the weight).

        """
        if not 1 <= weight <= self.max_weight:
            raise _invalid(f"weight {weight} is not between 1 and {self.max_weight}")
        values = self._coordinates(finite_vector(update, self.manifest)).astype(np.float64)
        values *= weight / self.max_weight
        values /= self._steps
        values += self.largest / 2
        values += 0.5 if generator is None else generator.random(values.size)
        digits = np.clip(np.floor(values), 0, self.largest).astype(np.int64)
        return np.concatenate([digits, self._weight_digits(weight)])

    def mean(self, sums: NDArray[np.int64], clients: int) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Give the weighted mean that the sums of ``clients`` clients' digits stand for, and their weight.

        A function of the integers alone, in one fixed order: the same bits whoever added them and how.

        Raises:
            FedftError: FEDFT-8826 when the sums are no such sums.

        """
        if sums.shape != (self.payload.elements,) or clients < 1:
            raise _invalid(
                f"{sums.size} sums of {clients} clients, the grid has {self.payload.elements} digits"
            )
        total = int(np.dot(sums[self.coordinates :], self._powers))
        if not clients <= total <= clients * self.max_weight:
            raise _invalid(f"the weights of {clients} clients add up to {total}")
        values = (sums[: self.coordinates] - clients * self.largest / 2) * self._steps
        values *= self.max_weight / total
        return self.manifest.unflatten(self._whole(values).astype(np.float32)), total

    def remainder(self, update: Arrays, digits: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Give what a client's digits leave out of its update: the residual of error feedback.

        Raises:
            FedftError: FEDFT-4018 when more is left than there was, so that error feedback would diverge.

        """
        sent, _ = self.mean(digits, 1)
        before = self.manifest.flatten(update)
        after = before - self.manifest.flatten(sent)
        if np.linalg.norm(after) >= np.linalg.norm(before) > 0:
            raise FedftError(
                Code.NOT_A_CONTRACTION,
                f"the grid {self.kind.name} leaves more than there was; error feedback would diverge",
                hint="smaller steps, or this grid without error feedback",
            )
        return self.manifest.unflatten(after)

    @property
    def _size(self) -> int:
        elements = self.manifest.total_elements
        return padded_size(elements) if self.kind.rotated else elements

    @cached_property
    def _steps(self) -> NDArray[np.float64]:
        """Step of each travelling coordinate."""
        if self.kind.rotated:
            return np.full(self.coordinates, self.steps[0], dtype=np.float64)
        steps = np.repeat(self.steps.astype(np.float64), np.diff(self.manifest.offsets))
        return steps if self.positions is None else steps[self.positions]

    @cached_property
    def _powers(self) -> NDArray[np.int64]:
        return (self.largest + 1) ** np.arange(self.weight_digits, dtype=np.int64)

    def _weight_digits(self, weight: int) -> NDArray[np.int64]:
        return (weight // self._powers) % (self.largest + 1)

    def _coordinates(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        values = rotate(flat, self.seed) if self.kind.rotated else flat
        return values if self.positions is None else values[self.positions]

    def _whole(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.positions is not None:
            whole = np.zeros(self._size)
            whole[self.positions] = values
            values = whole
        if self.kind.rotated:
            return unrotate(values, self.seed, self.manifest.total_elements)
        return values

    def _are_positions(self, positions: NDArray[np.int64]) -> bool:
        good = positions.ndim == 1 and positions.dtype == np.int64 and positions.size > 0
        return bool(
            good
            and positions[0] >= 0
            and positions[-1] < self._size
            and np.all(positions[1:] > positions[:-1])
        )


def steps_reaching(reach: Sequence[float], kind: GridKind) -> NDArray[np.float32]:
    """Give the steps with which a grid reaches ±``reach`` in each tensor, such as a past aggregate's peak."""
    steps = 2 * np.asarray(reach, dtype=np.float64) / kind.largest
    return np.clip(steps, 2 * MIN_STEP, MAX_STEP / 2).astype(np.float32)


def _invalid(what: str) -> FedftError:
    return FedftError(Code.GRID_INVALID, what)
