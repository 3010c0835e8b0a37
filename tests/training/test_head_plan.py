from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from fedft.config.schema import HeadSection
from fedft.models.pooled import PooledHead
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.accounting.planning import calibrate
from fedft.privacy.mechanisms.sampling import PoissonSampler
from fedft.training.head_plan import FEWEST, MOST, proposed_head_steps
from fedft.training.head_stage import train_head_private
from fedft.training.private_schedule import PrivateRounds

BUDGET = Budget(3.0, 1e-5)


def proposed(examples: int = 400, clients: int = 1, classes: int = 4, budget: Budget = BUDGET) -> int:
    sigma = calibrate(budget, PrivacyEvent(1.0))
    return proposed_head_steps(sigma, examples=examples, clients=clients, classes=classes)


def test_more_records_sites_and_budget_allow_more_steps_and_more_classes_fewer() -> None:
    assert proposed(800) > proposed() > proposed(classes=8)
    assert proposed(clients=4) > proposed()
    assert proposed(budget=Budget(8.0, 1e-5)) > proposed() > proposed(budget=Budget(1.5, 1e-5))


def test_the_number_is_bounded() -> None:
    assert proposed(10**6) == MOST
    assert proposed(50, classes=50) == FEWEST


def test_the_noise_of_a_logit_is_then_about_one_nat() -> None:
    examples, classes = 400, 4
    steps = proposed(examples, classes=classes)
    assert FEWEST < steps < MOST
    sigma = calibrate(BUDGET, PrivacyEvent(1.0)) * math.sqrt(steps)
    head = PooledHead("mean", 1, 600, classes, normalise=True)
    rounds = PrivateRounds(PoissonSampler(examples, examples), steps, 1, sigma)
    nobody = torch.empty(0, 1, 600), torch.empty(0, dtype=torch.long)
    train_head_private(head, *nobody, HeadSection(steps=steps), rounds)
    texts = F.normalize(torch.randn(200, 1, 600, generator=torch.Generator().manual_seed(0)), dim=2)
    logits = (head(texts) - head.classifier.bias).detach()
    assert float(logits.std()) == pytest.approx(1.0, rel=0.1)
