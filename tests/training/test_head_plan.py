from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fedft.config.schema import HeadSection
from fedft.models.pooled import PooledHead
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.accounting.planning import calibrate
from fedft.privacy.mechanisms.sampling import PoissonSampler
from fedft.training.head_plan import FEWEST, MOST, plain_steps, proposed_head_steps
from fedft.training.head_stage import train_head_private
from fedft.training.private_schedule import PrivateRounds

BUDGET = Budget(3.0, 1e-5)


def proposed(
    examples: int = 800,
    clients: int = 1,
    classes: int = 4,
    budget: Budget = BUDGET,
    momentum: float = 0.0,
) -> int:
    sigma = calibrate(budget, PrivacyEvent(1.0))
    return proposed_head_steps(
        sigma, examples=examples, clients=clients, classes=classes, rounds=1, momentum=momentum
    )


def test_more_records_sites_and_budget_allow_more_steps_and_more_classes_fewer() -> None:
    assert proposed(1600) > proposed() > proposed(classes=8)
    assert proposed(clients=4) > proposed()
    assert proposed(budget=Budget(8.0, 1e-5)) > proposed() > proposed(budget=Budget(1.5, 1e-5))


def test_the_number_is_bounded() -> None:
    assert proposed(10**7) == MOST
    assert proposed(50, classes=50) == FEWEST


@given(st.integers(1, 60), st.floats(0, 0.98))
def test_momentum_goes_as_far_as_so_many_plain_steps(steps: int, momentum: float) -> None:
    velocity = moved = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1
        moved += velocity
    assert plain_steps(steps, momentum) == pytest.approx(moved, rel=1e-9)


def test_with_momentum_a_round_goes_no_further_in_fewer_steps() -> None:
    plain, fewer = proposed(), proposed(momentum=0.9)
    assert fewer < plain
    assert plain_steps(fewer, 0.9) <= plain < plain_steps(fewer + 1, 0.9)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_the_noise_of_a_logit_is_then_what_was_planned(momentum: float) -> None:
    examples, classes = 800, 4
    steps = proposed(examples, classes=classes, momentum=momentum)
    assert plain_steps(steps, momentum) > FEWEST
    sigma = calibrate(BUDGET, PrivacyEvent(1.0)) * math.sqrt(steps)
    head = PooledHead("mean", 1, 600, classes, normalise=True)
    rounds = PrivateRounds(PoissonSampler(examples, examples), steps, 1, sigma)
    nobody = torch.empty(0, 1, 600), torch.empty(0, dtype=torch.long)
    train_head_private(head, *nobody, HeadSection(steps=steps, momentum=momentum), rounds)
    texts = F.normalize(torch.randn(200, 1, 600, generator=torch.Generator().manual_seed(0)), dim=2)
    logits = (head(texts) - head.classifier.bias).detach()
    assert float(logits.std()) == pytest.approx(0.5 * math.sqrt(2), rel=0.2)
