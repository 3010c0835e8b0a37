"""Pooled features of a frozen body: computed once, whatever is then done with the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fedft.data.samples import ClassSample
from fedft.models.pooled import PooledClassifier, PooledHead
from fedft.training.evaluate import evaluating
from fedft.training.task import Task, batches_by_length, device_of, to_device

_STEPS = 300


def pooled_features(
    model: PooledClassifier, task: Task[ClassSample], samples: Sequence[ClassSample], batch_size: int
) -> Tensor:
    """Return (n, k, d) float32 pooled states on the model's device, in the order of the samples."""
    head, device = model.head, device_of(model)
    pooled = torch.empty(len(samples), *head.center.shape, device=device)
    places = {id(sample): index for index, sample in enumerate(samples)}
    with evaluating(model):
        for chunk in batches_by_length(samples, batch_size):
            inputs = to_device(task.collate(chunk), device)
            inputs.pop("labels")
            pooled[[places[id(sample)] for sample in chunk]] = model.pooled(**inputs)
    return pooled


class FeatureCache:
    """Keeps clients' pooled states for as long as the adapters that they depend on stay the same."""

    def __init__(self) -> None:
        self._digest = ""
        self._kept: dict[int, Tensor] = {}

    def of(self, client: int, digest: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return a client's features under the adapters of this digest, computed at first use."""
        if digest != self._digest:
            self._digest, self._kept = digest, {}
        if client not in self._kept:
            self._kept[client] = compute()
        return self._kept[client]


def labels_of(samples: Sequence[ClassSample]) -> Tensor:
    """Return (n,) int64 labels."""
    return torch.tensor([sample.label for sample in samples], dtype=torch.long)


def head_rate(head: PooledHead) -> float:
    """Return the rate of plain gradient descent on a head that starts at zero: the number of classes K.

    There the loss is (1/K)(I - 11ᵀ/K) ⊗ E[xxᵀ] curved, at most 2/K along features of length 1 and a bias, so
    that no more than K is stable; nothing about the data is needed to choose it.
    """
    return float(head.classifier.out_features)


def start_head(head: PooledHead, pooled: Tensor, labels: Tensor) -> None:
    """Fit a head to samples that anyone may see: center, then full-batch gradient descent from zero.

    Args:
        head: changed in place.
        pooled: (n, k, d) pooled states.
        labels: (n,) class indices.

    """
    weight, bias = head.classifier.weight, head.classifier.bias
    with torch.no_grad():
        head.center.copy_(pooled.mean(0))
        weight.zero_()
        bias.zero_()
        features, rate = head.features(pooled), head_rate(head)
        wanted = F.one_hot(labels.to(pooled.device), len(bias)).float()
        for _ in range(_STEPS):
            errors = ((features @ weight.T + bias).softmax(1) - wanted) / len(pooled)
            weight.sub_(rate * errors.T @ features)
            bias.sub_(rate * errors.sum(0))
