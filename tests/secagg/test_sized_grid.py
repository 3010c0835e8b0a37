"""Grids made for the size of the updates: sizes under the masks, steps that find the right size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.codecs import Manifest, TensorSpec
from fedft.errors import FedftError
from fedft.secagg.decode import decode_round_request
from fedft.secagg.encode import encode
from fedft.secagg.grid import grid_kind
from fedft.secagg.messages import MaskRequest, RoundRequest
from fedft.secagg.sized_grid import MIN_SIZE, SizedGrid
from tests.secagg.federation import Dropouts, Federation

MANIFEST = Manifest((TensorSpec("a", (30, 20)), TensorSpec("b", (400,))))
KINDS = ["ternary", "int4", "int8"]
Update = dict[str, np.ndarray]


def sized(kind: str, sizes: list[float], max_weight: int = 1) -> SizedGrid:
    return SizedGrid(grid_kind(kind), MANIFEST, np.array(sizes, dtype=np.float32), max_weight)


def update(seed: int, a: float = 1.0, b: float = 0.01) -> Update:
    values = np.random.default_rng(seed).normal(0.2, 1, MANIFEST.total_elements).astype(np.float32)
    arrays = MANIFEST.unflatten(values)
    return {"a": arrays["a"] * np.float32(a), "b": arrays["b"] * np.float32(b)}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(exponent=st.integers(-30, 12), clients=st.integers(1, 5))
def test_the_sizes_are_the_geometric_mean_of_the_clients_whatever_was_published(
    kind: str, exponent: int, clients: int
) -> None:
    grid = sized(kind, [2.0**exponent] * 2)
    updates = [update(seed, a=2.0 ** (exponent + seed)) for seed in range(clients)]
    updates = [{"a": one["a"], "b": one["a"].reshape(-1)[:400]} for one in updates]

    total = np.sum([grid.digits(one) for one in updates], axis=0)

    own = [[np.sqrt(np.mean(np.square(one[name], dtype=np.float64))) for name in "ab"] for one in updates]
    expected = np.exp2(np.mean(np.log2(own), axis=0))
    np.testing.assert_allclose(grid.mean(total, clients).sizes, expected, rtol=2 ** (1 / 16) - 1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_guess_that_is_far_off_is_mended_in_a_round_and_nothing_is_lost(kind: str) -> None:
    sizes, weights = [1e-4, 1e-4], [100, 200, 1000]
    residuals = [{name: np.zeros_like(value) for name, value in update(0).items()} for _ in weights]
    applied, wanted = np.zeros(MANIFEST.total_elements), np.zeros(MANIFEST.total_elements)
    for number in range(30):
        grid, total = sized(kind, sizes, 1000), np.zeros(0, dtype=np.int64)
        for client, weight in enumerate(weights):
            fresh = update(10 * number + client)
            whole = {name: fresh[name] + residuals[client][name] for name in fresh}
            digits = grid.digits(whole, weight)
            residuals[client] = grid.remainder(whole, digits)
            total = total + digits if total.size else digits
            wanted += weight / sum(weights) * MANIFEST.flatten(fresh)
        mean = grid.mean(total, len(weights))
        assert mean.weight == sum(weights)
        applied, sizes = applied + MANIFEST.flatten(mean.arrays), mean.sizes.tolist()

    assert 0.1 < sizes[0] < 1.0  # weighted by a tenth to the whole
    assert np.linalg.norm(applied - wanted) < 0.25 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_never_exceeds_what_there_was(kind: str) -> None:
    for size in (1e-6, 1.0, 1e4):
        grid, whole = sized(kind, [size] * 2, 7), update(1)
        for weight in (1, 7):
            left = grid.remainder(whole, grid.digits(whole, weight))
            for name in whole:
                assert (np.abs(left[name]) <= np.abs(whole[name]) * (1 + 1e-5)).all()


def test_an_update_of_zeros_shrinks_the_grid_and_no_further_than_its_least() -> None:
    nothing = {name: np.zeros_like(value) for name, value in update(0).items()}
    grid = sized("int4", [1.0, 1.0])
    assert (grid.mean(grid.digits(nothing), 1).sizes == 2.0**-16).all()
    least = sized("int4", [2 * MIN_SIZE] * 2)
    assert (least.mean(least.digits(nothing), 1).sizes >= np.float32(MIN_SIZE)).all()


def test_under_masks_the_sum_and_the_sizes_are_those_of_the_survivors() -> None:
    grid = sized("int4", [1.0, 0.01])
    digits = {number: grid.digits(update(number)) for number in range(4)}
    federation = Federation(4)
    federation.exchange_keys()
    result = federation.sum(digits, grid.payload.largest, dropouts=Dropouts(masked=[2]))

    secure = grid.mean(result.digits, 3)
    plain = grid.mean(digits[0] + digits[1] + digits[3], 3)
    assert np.array_equal(secure.sizes, plain.sizes)
    assert all(np.array_equal(secure.arrays[name], plain.arrays[name]) for name in plain.arrays)


def test_the_payload_names_the_sizes() -> None:
    assert sized("int4", [1.0, 1.0]).payload != sized("int4", [1.0, 1.001]).payload


def test_a_rounds_request_goes_through_its_bytes() -> None:
    federation, grid = Federation(3), sized("ternary", [0.5, 1e-7])
    request = RoundRequest(
        MaskRequest(federation.session.digest, 7, grid.payload), tuple(grid.sizes.tolist())
    )
    assert decode_round_request(encode(request)) == request


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_size_that_is_none_is_refused(size: float) -> None:
    mask = MaskRequest(bytes(32), 7, sized("int4", [1.0, 1.0]).payload)
    with pytest.raises(FedftError, match="FEDFT-4007"):
        decode_round_request(encode(RoundRequest(mask, (1.0, size))))
