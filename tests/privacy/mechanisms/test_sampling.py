import numpy as np
import pytest
from scipy import stats

from fedft.errors import FedftError
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.mechanisms.sampling import PoissonSampler, ShuffledSampler, TruncatedPoissonSampler
from tests.privacy.sources import SeededNoise


def _matrix(batches: list[np.ndarray], examples: int) -> np.ndarray:
    rows = np.zeros((len(batches), examples), dtype=bool)
    for row, batch in zip(rows, batches, strict=True):
        row[batch] = True
    return rows


def test_poisson_inclusions_are_independent_coins() -> None:
    sampler = PoissonSampler(50, 5.0)

    taken = _matrix(list(sampler.batches(8000)), 50)

    counts = taken.sum(axis=0)
    each = np.array([stats.binomtest(int(c), 8000, 0.1).pvalue for c in counts])
    assert each.min() > 1e-7
    sizes = taken.sum(axis=1)
    assert sizes.var() == pytest.approx(50 * 0.1 * 0.9, rel=0.1)
    correlation = np.corrcoef(taken.T)[np.triu_indices(50, 1)]
    assert abs(correlation).max() < 5.5 / np.sqrt(8000)
    assert np.corrcoef(taken[:-1].ravel(), taken[1:].ravel())[0, 1] == pytest.approx(0, abs=0.01)


def test_poisson_batches_may_be_empty() -> None:
    sizes = [len(batch) for batch in PoissonSampler(4, 0.4).batches(300)]

    assert 0 in sizes
    assert max(sizes) > 0


def test_rate_one_takes_everything() -> None:
    (batch,) = PoissonSampler(7, 7).batches(1)

    assert batch.tolist() == list(range(7))
    assert batch.dtype == np.int64


def test_events_say_what_was_sampled() -> None:
    assert PoissonSampler(200, 10).event(1.5, 7) == PrivacyEvent(1.5, 0.05, 7)
    assert TruncatedPoissonSampler(200, 10, 15).event(1.5, 7) == PrivacyEvent(1.5, 0.05, 7, 15, 200)


def test_truncation_is_uniform_and_bounded() -> None:
    batches = list(TruncatedPoissonSampler(40, 20, 20).batches(6000))

    taken = _matrix(batches, 40)
    assert taken.sum(axis=1).max() == 20
    assert stats.chisquare(taken.sum(axis=0)).pvalue > 1e-6
    assert all((np.diff(batch) > 0).all() for batch in batches)


def test_truncation_leaves_small_batches_alone() -> None:
    plain = list(PoissonSampler(40, 4, SeededNoise(1)).batches(20))
    capped = list(TruncatedPoissonSampler(40, 4, 40, SeededNoise(1)).batches(20))

    assert all(np.array_equal(a, b) for a, b in zip(plain, capped, strict=True))


def test_shuffled_epochs_use_every_example_once() -> None:
    batches = list(ShuffledSampler(10, 4).batches(6))

    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(10))
    assert not all(np.array_equal(a, b) for a, b in zip(batches[:3], batches[3:], strict=True))


@pytest.mark.parametrize(("steps", "uses"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_shuffled_epochs_claim_one_release_an_epoch(steps: int, uses: int) -> None:
    sampler = ShuffledSampler(10, 4)

    assert sampler.event(1.0, steps) == PrivacyEvent(1.0, 1.0, uses)
    assert _matrix(list(sampler.batches(steps)), 10).sum(axis=0).max() <= uses


@pytest.mark.parametrize(("examples", "batch"), [(10, 0), (10, 11), (10, -1), (0, 1), (10, float("nan"))])
@pytest.mark.parametrize("kind", [PoissonSampler, ShuffledSampler])
def test_sizes_out_of_range_are_refused(kind: type, examples: int, batch: int) -> None:
    with pytest.raises(FedftError) as caught:
        kind(examples, batch)

    assert caught.value.code == "FEDFT-8101"


def test_a_cap_below_the_mean_is_refused() -> None:
    with pytest.raises(FedftError) as caught:
        TruncatedPoissonSampler(100, 10, 9)

    assert caught.value.code == "FEDFT-8101"


def test_the_probability_never_exceeds_the_claim() -> None:
    class Boundary:
        def words(self, count: int) -> np.ndarray:
            return np.array([0, 2**62 - 1, 2**62, 2**64 - 1], dtype=np.uint64)[:count]

    (batch,) = PoissonSampler(4, 1, Boundary()).batches(1)

    assert batch.tolist() == [0, 1]
