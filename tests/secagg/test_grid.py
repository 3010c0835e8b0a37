"""The integers that are summed: bounds, unbiased rounding, weights, and the same bits as the plain sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.codecs import Manifest, TensorSpec
from fedft.errors import FedftError
from fedft.secagg.grid import Grid, grid_kind, steps_reaching
from fedft.secagg.positions import positions_of_largest, random_positions
from tests.secagg.federation import Dropouts, Federation

KINDS = ["ternary", "int4", "int8", "rotated1"]
MANIFEST = Manifest((TensorSpec("a", (30, 20)), TensorSpec("b", (400,))))
SIZE = MANIFEST.total_elements


def make_grid(kind: str, *, reach: float = 4.0, max_weight: int = 1, **options: object) -> Grid:
    chosen = grid_kind(kind)
    count = 1 if chosen.rotated else 2
    seed = b"round 7" if chosen.rotated else b""
    steps = steps_reaching([reach] * count, chosen)
    return Grid(chosen, MANIFEST, steps, max_weight, seed=seed, **options)  # type: ignore[arg-type]


def make_update(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    values = np.random.default_rng(seed).normal(0, scale, SIZE).astype(np.float32)
    return MANIFEST.unflatten(values)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(3, 8), max_weight=st.sampled_from([1, 7, 1 << 20]))
def test_the_secure_mean_has_the_bits_of_the_plain_one(
    kind: str, seed: int, count: int, max_weight: int
) -> None:
    rng = np.random.default_rng(seed)
    grid = make_grid(kind, max_weight=max_weight)
    weights = rng.integers(1, max_weight, size=count, endpoint=True)
    digits = {
        n: grid.digits(make_update(seed + n), int(weights[n]), np.random.default_rng(n)) for n in range(count)
    }
    federation = Federation(count)
    federation.exchange_keys()

    result = federation.sum(digits, grid.largest)
    secure, total = grid.mean(result.digits, count)

    plain, plain_total = grid.mean(sum(digits.values()), count)  # type: ignore[arg-type]
    assert total == plain_total == weights.sum()
    assert all(np.array_equal(secure[name], plain[name]) for name in plain)


@pytest.mark.parametrize("kind", KINDS)
def test_random_rounding_is_unbiased_within_the_reach(kind: str) -> None:
    grid = make_grid(kind, reach=6.0)
    update = make_update(0)
    rng = np.random.default_rng(1)
    draws = 4000

    total = sum(grid.digits(update, generator=rng) for _ in range(draws))
    mean, _ = grid.mean(np.asarray(total), draws)

    error = MANIFEST.flatten(mean) - MANIFEST.flatten(update)
    # One rounding has a standard deviation of at most half a step in each coordinate.
    assert np.abs(error).max() < 6 * grid.steps.max() / 2 / np.sqrt(draws)


def test_the_weighted_mean_is_the_weighted_mean() -> None:
    grid = make_grid("int8", reach=5.0, max_weight=1000)
    weights = [1, 10, 1000]
    updates = [make_update(seed) for seed in range(3)]
    sums = sum(grid.digits(update, weight) for update, weight in zip(updates, weights, strict=True))

    mean, total = grid.mean(np.asarray(sums), 3)

    expected = sum(w * MANIFEST.flatten(u).astype(np.float64) for u, w in zip(updates, weights, strict=True))
    assert total == 1011
    assert np.abs(MANIFEST.flatten(mean) - expected / 1011).max() <= 3 * grid.steps.max() / 2 * 1000 / 1011


@pytest.mark.parametrize("kind", ["ternary", "int4", "int8"])
def test_nearest_rounding_errs_by_half_a_step_at_most_and_clips(kind: str) -> None:
    grid = make_grid(kind, reach=1.0)
    update = make_update(3, 0.3)
    values = MANIFEST.flatten(update)

    sent = MANIFEST.flatten(grid.mean(grid.digits(update), 1)[0])

    inside = np.abs(values) <= 1
    assert np.abs(sent - values)[inside].max() <= grid.steps.max() / 2 * (1 + 1e-6)
    assert np.allclose(np.abs(sent[~inside]), 1, rtol=1e-6)


@pytest.mark.parametrize("make", [positions_of_largest, None])
def test_only_shared_positions_travel(make: object) -> None:
    public = MANIFEST.flatten(make_update(9))
    chosen = positions_of_largest(public, 100) if make else random_positions(b"seed", SIZE, 100)
    grid = make_grid("int8", reach=5.0, positions=chosen)
    update = make_update(4)

    digits = grid.digits(update)
    sent = MANIFEST.flatten(grid.mean(digits, 1)[0])

    assert digits.size == 100 + grid.weight_digits
    assert set(np.flatnonzero(sent)) <= set(chosen)
    assert np.allclose(sent[chosen], MANIFEST.flatten(update)[chosen], atol=float(grid.steps.max()))


def test_positions_are_the_same_everywhere_and_spread_evenly() -> None:
    first = random_positions(b"seed", 10_000, 5_000)

    assert np.array_equal(first, random_positions(b"seed", 10_000, 5_000))
    assert not np.array_equal(first, random_positions(b"other", 10_000, 5_000))
    assert np.array_equal(first, np.unique(first))
    assert abs(int((first < 5_000).sum()) - 2_500) < 6 * np.sqrt(5_000 / 4)
    assert positions_of_largest(np.array([0.1, -3, 2, 0], dtype=np.float32), 2).tolist() == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_error_feedback_learns_what_the_grid_leaves_out(kind: str) -> None:
    """Least squares at six clients on a coarse grid: what is left out comes in later rounds."""
    rng = np.random.default_rng(0)
    target = {n: rng.normal(0, 1, SIZE).astype(np.float32) for n in range(6)}
    optimum = np.mean(list(target.values()), axis=0)
    state = np.zeros(SIZE, dtype=np.float32)
    residuals = {n: np.zeros(SIZE, dtype=np.float32) for n in range(6)}
    start = np.linalg.norm(optimum)
    for round in range(300):
        grid = make_grid(kind, reach=0.012 if kind == "rotated1" else 0.06)
        if grid.seed:
            grid = replace(grid, seed=b"round %d" % round)
        sums = np.zeros(grid.payload.elements, dtype=np.int64)
        for n, own in target.items():
            update = MANIFEST.unflatten(residuals[n] + 0.02 * (own - state))
            digits = grid.digits(update)
            residuals[n] = MANIFEST.flatten(grid.remainder(update, digits))
            sums += digits
        state = state + MANIFEST.flatten(grid.mean(sums, 6)[0])

    assert np.linalg.norm(state - optimum) < 0.1 * start


def test_a_dropped_clients_update_stays_in_its_residual() -> None:
    """Survivors keep the remainder, a drop-out its whole update: nothing is lost, nothing counts twice."""
    grid = make_grid("ternary", reach=1.0)
    updates = {n: make_update(n) for n in range(4)}
    digits = {n: grid.digits(update) for n, update in updates.items()}
    federation = Federation(4, threshold=3)
    federation.exchange_keys()

    result = federation.sum(digits, grid.largest, dropouts=Dropouts(masked=[2]))

    sent = MANIFEST.flatten(grid.mean(result.digits, len(result.survivors))[0]) * len(result.survivors)
    kept = {
        n: MANIFEST.flatten(grid.remainder(update, digits[n]) if n in result.survivors else update)
        for n, update in updates.items()
    }
    everything = sum(MANIFEST.flatten(update) for update in updates.values())
    assert np.allclose(sent + sum(kept.values()), everything, atol=1e-5)


def test_error_feedback_that_would_diverge_is_refused() -> None:
    grid = make_grid("rotated1", reach=100.0)
    update = make_update(1)

    with pytest.raises(FedftError, match="FEDFT-4018"):
        grid.remainder(update, grid.digits(update))


def test_every_part_of_a_grid_is_in_its_payload() -> None:
    grid = make_grid("ternary", max_weight=7)
    others = [
        make_grid("ternary"),
        make_grid("int4", max_weight=7),
        make_grid("ternary", reach=5.0, max_weight=7),
        make_grid("ternary", max_weight=7, positions=np.arange(9)),
        replace(grid, manifest=Manifest((TensorSpec("a", (20, 30)), TensorSpec("b", (400,))))),
        make_grid("rotated1", max_weight=7),
        replace(make_grid("rotated1", max_weight=7), seed=b"round 8"),
    ]

    assert len({other.payload.grid for other in [grid, *others]}) == len(others) + 1
    grid.expect(make_grid("ternary", max_weight=7).payload)
    for other in others:
        with pytest.raises(FedftError, match="FEDFT-8827"):
            grid.expect(other.payload)


@pytest.mark.parametrize("kind", ["dense", "bf16", "rotated2", "", "least_squares"])
def test_codes_with_factors_of_their_own_are_refused(kind: str) -> None:
    with pytest.raises(FedftError, match="FEDFT-8826"):
        grid_kind(kind)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": np.ones(3, dtype=np.float32)},
        {"steps": np.ones(2)},
        {"steps": np.array([1, np.nan], dtype=np.float32)},
        {"steps": np.array([1, 0], dtype=np.float32)},
        {"steps": np.array([1, 1e9], dtype=np.float32)},
        {"max_weight": 0},
        {"max_weight": 1 << 21},
        {"seed": b"seed"},
        {"positions": np.array([1, 1])},
        {"positions": np.array([-1, 1])},
        {"positions": np.array([SIZE])},
        {"positions": np.array([], dtype=np.int64)},
        {"positions": np.array([0.5])},
    ],
)
def test_grids_out_of_range(change: dict[str, object]) -> None:
    with pytest.raises(FedftError, match="FEDFT-8826"):
        replace(make_grid("ternary"), **change)  # type: ignore[arg-type]


def test_updates_weights_and_sums_out_of_range() -> None:
    grid = make_grid("ternary", max_weight=3)
    bad = make_update(0)
    bad["a"][0, 0] = np.inf

    with pytest.raises(FedftError, match="FEDFT-4016"):
        grid.digits(bad)
    for weight in (0, 4):
        with pytest.raises(FedftError, match="FEDFT-8826"):
            grid.digits(make_update(0), weight)
    for sums in (np.zeros(5, dtype=np.int64), np.zeros(grid.payload.elements, dtype=np.int64)):
        with pytest.raises(FedftError, match="FEDFT-8826"):
            grid.mean(sums, 3)
