"""Training a pooled head alone, on features that are computed once; full batches, with or without privacy."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fedft.config.schema import HeadSection
from fedft.models.pooled import PooledHead
from fedft.privacy.mechanisms.clipping import FLAT, ClippingKind
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.training.features import head_rate
from fedft.training.head_plan import FEWEST
from fedft.training.private_schedule import PrivateRounds


def measure_center(head: PooledHead, pooled: Tensor) -> None:
    """Set the center to the mean of (n, k, d) pooled states."""
    with torch.no_grad():
        head.center.copy_(pooled.mean(0))


def measure_center_private(head: PooledHead, pooled: Tensor, rounds: PrivateRounds) -> None:
    """Set the center to a noised mean.

    Guarantee: one Gaussian release of ``rounds.noise_multiplier`` in the records, if its event is charged. A
    record that gave no sample counts as zero; the mean is over all records.
    """
    mechanism = GaussianMechanism(
        head.center.numel(),
        max_norm=math.sqrt(head.layers),  # of k vectors of length 1
        noise_multiplier=rounds.noise_multiplier,
        denominator=rounds.sampler.expected_batch,
    )
    if len(pooled):
        mechanism.add(pooled.flatten(1).clone())
    with torch.no_grad():
        head.center.copy_(mechanism.release().view_as(head.center))


def head_steps(section: HeadSection) -> int:
    """Return the steps of a round without privacy."""
    return section.steps or FEWEST


def train_head(head: PooledHead, pooled: Tensor, labels: Tensor, section: HeadSection) -> float:
    """Take a round's steps of full-batch gradient descent; return the mean loss before the last."""
    features, wanted = _with_bias(head.features(pooled)), _one_hot(labels, head, pooled)
    weight = _joined(head)
    velocity, loss = torch.zeros_like(weight), 0.0
    for _ in range(head_steps(section)):
        logits = features @ weight.T
        loss = float(F.cross_entropy(logits, wanted))
        gradient = (logits.softmax(1) - wanted).T @ features / len(features)
        velocity = section.momentum * velocity + gradient
        weight -= _rate(section, head) * velocity
    _write(head, weight)
    return loss


def train_head_private(
    head: PooledHead,
    pooled: Tensor,
    labels: Tensor,
    section: HeadSection,
    rounds: PrivateRounds,
    clipping: ClippingKind = FLAT,
) -> None:
    """Take ``rounds.steps`` noised steps of full-batch gradient descent, with momentum from rest.

    Guarantee: ``rounds.event()``, one Gaussian release a step, in the records, if it is charged before. A
    record's gradient is (softmax - one hot) ⊗ (features, 1), clipped over weight and bias together; the mean
    is over all records, those that gave no sample included.
    """
    features, wanted = _with_bias(head.features(pooled)), _one_hot(labels, head, pooled)
    weight = _joined(head)
    mechanism = GaussianMechanism(
        weight.numel(),
        max_norm=section.max_grad_norm,
        noise_multiplier=rounds.noise_multiplier,
        denominator=rounds.sampler.expected_batch,
        clipping=clipping,
    )
    velocity = torch.zeros_like(weight)
    for _ in range(rounds.steps):
        if len(features):
            mechanism.add_outer((features @ weight.T).softmax(1) - wanted, features)
        velocity = section.momentum * velocity + mechanism.release().to(weight.device).view_as(weight)
        weight -= _rate(section, head) * velocity
    _write(head, weight)


def _rate(section: HeadSection, head: PooledHead) -> float:
    return section.learning_rate or head_rate(head)


def _with_bias(features: Tensor) -> Tensor:
    return F.pad(features.detach(), (0, 1), value=1.0)


def _one_hot(labels: Tensor, head: PooledHead, pooled: Tensor) -> Tensor:
    return F.one_hot(labels.to(pooled.device), head.classifier.out_features).float()


def _joined(head: PooledHead) -> Tensor:
    """Return (classes, k·d + 1): weight and bias side by side."""
    return torch.cat([head.classifier.weight, head.classifier.bias.unsqueeze(1)], dim=1).detach()


def _write(head: PooledHead, weight: Tensor) -> None:
    with torch.no_grad():
        head.classifier.weight.copy_(weight[:, :-1])
        head.classifier.bias.copy_(weight[:, -1])
