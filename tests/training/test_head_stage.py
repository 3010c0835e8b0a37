from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from fedft.config.schema import HeadSection
from fedft.models.pooled import PooledHead
from fedft.privacy.mechanisms.clipping import MARGIN
from fedft.privacy.mechanisms.sampling import PoissonSampler
from fedft.training.features import FeatureCache
from fedft.training.head_stage import (
    measure_center,
    measure_center_private,
    train_head,
    train_head_private,
)
from fedft.training.private_schedule import PrivateRounds

RECORDS, LAYERS, WIDTH, CLASSES = 40, 2, 5, 3


def example() -> tuple[PooledHead, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pooled = F.normalize(torch.randn(RECORDS, LAYERS, WIDTH, generator=generator), dim=2)
    labels = torch.randint(CLASSES, (RECORDS,), generator=generator)
    return PooledHead("mean", LAYERS, WIDTH, CLASSES, normalise=True), pooled, labels


def rounds(sigma: float, steps: int = 1, records: int = RECORDS) -> PrivateRounds:
    return PrivateRounds(PoissonSampler(records, records), steps, 1, sigma)


def test_every_step_takes_in_every_record() -> None:
    assert rounds(2.0, 7).event().sample_rate == 1
    assert rounds(2.0, 7).event().steps == 7


def test_descent_is_that_of_the_mean_cross_entropy() -> None:
    (head, pooled, labels), (expected, _, _) = example(), example()
    section = HeadSection(steps=20)
    measure_center(head, pooled)
    measure_center(expected, pooled)
    train_head(head, pooled, labels, section)
    trained = list(expected.classifier.parameters())
    optimizer = torch.optim.SGD(trained, lr=float(CLASSES), momentum=section.momentum)
    for _ in range(section.steps):
        optimizer.zero_grad()
        F.cross_entropy(expected(pooled), labels).backward(inputs=trained)
        optimizer.step()
    torch.testing.assert_close(head(pooled), expected(pooled), atol=1e-5, rtol=1e-4)


def test_with_hardly_any_noise_private_steps_are_clipped_steps() -> None:
    (head, pooled, labels), (expected, _, _) = example(), example()
    section = HeadSection(max_grad_norm=0.3)
    train_head_private(head, pooled, labels, section, rounds(1e-6))
    features = F.pad(expected.features(pooled).detach(), (0, 1), value=1.0)
    errors = torch.full((RECORDS, CLASSES), 1 / CLASSES) - F.one_hot(labels, CLASSES)
    rows = torch.einsum("na,nb->nab", errors, features).flatten(1)
    rows *= (0.3 * MARGIN / rows.norm(dim=1, keepdim=True)).clamp(max=1)
    step = -CLASSES * rows.mean(0).view(CLASSES, -1)
    torch.testing.assert_close(head.classifier.weight.detach(), step[:, :-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head.classifier.bias.detach(), step[:, -1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [1.0, 1e3, math.inf])
def test_one_record_moves_a_step_by_no_more_than_its_bound(size: float) -> None:
    """Features are of length 1 by construction; the bound must hold even where they are not."""
    _, pooled, labels = example()
    steps = []
    for kept in (RECORDS, RECORDS - 1):
        head = PooledHead("mean", LAYERS, WIDTH, CLASSES, normalise=False)
        values = pooled.clone()
        values[-1] *= size
        train_head_private(head, values[:kept], labels[:kept], HeadSection(max_grad_norm=0.5), rounds(1e-9))
        steps.append(torch.cat([head.classifier.weight, head.classifier.bias[:, None]], 1).detach())
    moved = float((steps[0] - steps[1]).norm()) * RECORDS / CLASSES
    assert moved <= 0.5 * (1 + 1e-5)
    assert torch.isfinite(steps[0]).all()


def test_the_noise_of_a_step_has_the_size_that_is_accounted_for() -> None:
    head = PooledHead("mean", LAYERS, 400, CLASSES, normalise=True)
    empty = torch.empty(0, LAYERS, 400)
    sigma, section = 3.0, HeadSection(max_grad_norm=0.5)
    train_head_private(head, empty, torch.empty(0, dtype=torch.long), section, rounds(sigma))
    found = float(head.classifier.weight.detach().std())
    assert found == pytest.approx(CLASSES * sigma * 0.5 / RECORDS, rel=0.1)


def test_the_center_is_a_noised_mean_over_all_records() -> None:
    head, pooled, _ = example()
    measure_center_private(head, pooled, rounds(1e-6, records=2 * RECORDS))
    torch.testing.assert_close(head.center.detach(), pooled.mean(0) / 2, atol=1e-4, rtol=1e-3)
    wide = PooledHead("mean", LAYERS, 500, CLASSES, normalise=True)
    measure_center_private(wide, torch.empty(0, LAYERS, 500), rounds(4.0))
    assert float(wide.center.detach().std()) == pytest.approx(4.0 * math.sqrt(LAYERS) / RECORDS, rel=0.15)


def test_features_are_computed_again_only_when_the_adapters_change() -> None:
    cache, computed = FeatureCache(), []

    def compute() -> torch.Tensor:
        computed.append(1)
        return torch.zeros(1)

    for client, digest in ((0, "a"), (0, "a"), (1, "a"), (0, "a"), (0, "b"), (0, "a")):
        cache.of(client, digest, compute)
    assert len(computed) == 4
