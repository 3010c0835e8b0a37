import importlib
import inspect
import multiprocessing
import os
import pkgutil
import random

import numpy as np
import pytest
import torch
from scipy import stats

import fedft.privacy
from fedft.privacy.mechanisms import noise
from fedft.privacy.mechanisms.noise import SecureNoise, add_gaussian
from tests.privacy.sources import NoNoise


def test_draws_follow_the_normal_law() -> None:
    draws = SecureNoise().normal(400_000).numpy()

    assert stats.kstest(draws, "norm").pvalue > 1e-6
    spread = (draws**2).sum()
    assert stats.chi2(len(draws)).cdf(spread) == pytest.approx(0.5, abs=0.5 - 1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 2 * noise._PAIRS_PER_BLOCK + 3])
def test_count_and_dtype(count: int) -> None:
    draws = SecureNoise().normal(count)

    assert draws.shape == (count,)
    assert draws.dtype == torch.float64
    assert torch.isfinite(draws).all()


def test_radius_reaches_beyond_the_float32_tail() -> None:
    smallest, largest = np.uint64(0), np.uint64(2**64 - 1)

    words = np.array([smallest, largest, 0, 0], dtype=np.uint64)

    draws = noise._box_muller(words)
    assert draws[0] == pytest.approx(9.4926, abs=1e-3)
    assert torch.isfinite(draws).all()
    assert draws[1].abs() < 1e-6


def test_box_muller_equals_its_formula() -> None:
    words = np.random.default_rng(1).integers(0, 2**64, size=1000, dtype=np.uint64)

    draws = noise._box_muller(words).numpy()

    u, v = words[:500].astype(np.longdouble) / 2**64, words[500:].astype(np.longdouble) / 2**64
    expected = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
    np.testing.assert_allclose(draws[:500], expected.astype(np.float64), rtol=1e-9, atol=1e-12)


def test_no_global_seed_changes_the_noise() -> None:
    seen = []
    for _ in range(2):
        torch.manual_seed(42)
        np.random.seed(42)
        random.seed(42)
        seen.append(SecureNoise().normal(64))

    assert not torch.isclose(seen[0], seen[1]).any()


def test_global_generators_are_not_touched() -> None:
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()

    SecureNoise().normal(1000)

    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state(legacy=False)["state"]["key"])


def test_calls_and_instances_are_uncorrelated() -> None:
    one, two = SecureNoise(), SecureNoise()
    draws = torch.stack([one.normal(20_000), one.normal(20_000), two.normal(20_000)]).numpy()

    correlation = np.corrcoef(draws)[np.triu_indices(3, 1)]

    assert (abs(correlation) < 5 / np.sqrt(20_000)).all()


def _child(source: SecureNoise, queue: "multiprocessing.Queue[list[float]]") -> None:
    queue.put(source.normal(8).tolist())


def test_a_forked_child_draws_other_noise_than_its_parent() -> None:
    context = multiprocessing.get_context("fork")
    source, queue = SecureNoise(), context.Queue()
    child = context.Process(target=_child, args=(source, queue))
    child.start()
    theirs = queue.get(timeout=30)
    child.join()

    assert set(theirs).isdisjoint(source.normal(8).tolist())


def test_keys_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = os.urandom

    def recorded(count: int) -> bytes:
        asked.append(count)
        return real(count)

    monkeypatch.setattr(os, "urandom", recorded)

    SecureNoise().words(1)
    SecureNoise().words(1)

    assert asked == [32, 32]


@pytest.mark.parametrize("std", [1e-6, 0.37, 1.0, 5.5, 1e4])
def test_result_lies_on_one_grid_and_fits_float32(std: float) -> None:
    values = torch.linspace(-3 * std, 3 * std, 5001, dtype=torch.float64)

    noised = add_gaussian(values, std, SecureNoise())

    grid = 2.0 ** (np.floor(np.log2(std)) - 20)
    assert torch.equal(noised / grid, torch.round(noised / grid))
    assert torch.equal(noised.float().double(), noised)
    assert grid <= std * 2.0**-20


def test_rounding_moves_nothing_by_more_than_half_a_cell() -> None:
    values = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    assert (add_gaussian(values, 1.0, NoNoise()) - values).abs().max() <= 2.0**-21


def test_noised_values_have_the_asked_spread() -> None:
    noised = add_gaussian(torch.full((200_000,), 7.0, dtype=torch.float64), 2.5, SecureNoise())

    assert stats.kstest((noised.numpy() - 7.0) / 2.5, "norm").pvalue > 1e-6


def test_the_package_holds_no_other_source_of_noise() -> None:
    found = set()
    for module in pkgutil.walk_packages(fedft.privacy.__path__, "fedft.privacy."):
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__ == module.name and hasattr(kind, "normal"):
                found.add(name)

    # The audit silences the noise of its own engines to look at what is noised; it releases nothing.
    assert found == {"NoiseSource", "SecureNoise", "Silence"}
