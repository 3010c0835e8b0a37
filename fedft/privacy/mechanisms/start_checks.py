"""Checks before the first private step: is a per-sample gradient what it claims to be?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.per_sample import PerSampleGradients

Batch = Mapping[str, Tensor]
PerSampleLoss = Callable[[nn.Module, Batch], Tensor]
"""Returns (batch,) losses, entry i a function of sample i alone."""

_ROWS, _TOLERANCE = 3, 1e-3


def batch_size(batch: Batch) -> int:
    """Return the number of samples; every tensor of a batch has them along its first dimension.

    Raises:
        FedftError: FEDFT-8408 where the tensors disagree.

    """
    sizes = {len(tensor) for tensor in batch.values()}
    if len(sizes) != 1:
        raise FedftError(Code.BATCH_SIZE_MISMATCH, f"the tensors of a batch have {sorted(sizes)} samples")
    return sizes.pop()


def require_per_sample(losses: object, samples: int) -> Tensor:
    """Return the losses if they are one for each sample.

    Raises:
        FedftError: FEDFT-8403 for another shape.

    """
    if not isinstance(losses, Tensor) or losses.shape != (samples,) or not losses.requires_grad:
        seen = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise FedftError(
            Code.LOSS_NOT_PER_SAMPLE,
            f"the loss has shape {seen} for a batch of {samples} samples, expected ({samples},)",
            hint="a mean over the batch has no bounded sensitivity; return one loss for each sample",
        )
    return losses


class PerSampleSource(Protocol):
    """Turns (batch,) losses into (batch, d) rows by a backward pass."""

    def backward(self, losses: Tensor) -> Tensor:
        """Return row i as a function of loss i."""
        ...


def refuse_narrow_arithmetic(model: nn.Module) -> None:
    """Refuse to compute private gradients in fewer than 32 bits (FEDFT-8410).

    A sample that joins a batch changes its padding, and with it how the rows of all others are rounded. Each
    row stays within the bound, but all of them move: measured with bfloat16 by up to 2.45 bounds in all, with
    float32 by less than 1e-4.
    """
    found = sorted(
        {
            str(tensor.dtype)
            for tensor in (*model.parameters(), *model.buffers())
            if tensor.is_floating_point() and tensor.dtype.itemsize < 4
        }
    )
    if torch.get_float32_matmul_precision() != "highest":
        found.append(f"matmul precision {torch.get_float32_matmul_precision()}")
    if found:
        raise FedftError(
            Code.NARROW_ARITHMETIC,
            f"a private step would compute with {', '.join(found)}",
            hint='set model.dtype = "float32"',
        )


def check_start(model: nn.Module, loss: PerSampleLoss, batch: Batch, gradients: PerSampleGradients) -> None:
    """Refuse to start unless rows of `gradients` are the gradients of single samples.

    On a few samples, without dropout: the rows add up to the ordinary gradient, and `check_independent`.

    Args:
        model: as it will be trained.
        loss: the per-sample loss.
        batch: a few samples; a single one is used twice.
        gradients: attached to the model.

    Raises:
        FedftError: FEDFT-8403 (not one loss for each sample), FEDFT-8404 (the rows do not add up, or samples
            depend on each other), and those of `PerSampleGradients.backward`.

    """
    probe = _few(batch)
    with _without_dropout(model):
        _refuse_unequal(
            _measure(model, loss, probe, gradients)[1].sum(0),
            _ordinary_gradient(model, loss, probe, gradients),
            "per-sample gradients do not add up to the gradient of the batch",
        )
    check_independent(model, loss, batch, gradients)


def check_independent(model: nn.Module, loss: PerSampleLoss, batch: Batch, source: PerSampleSource) -> None:
    """Refuse samples that see each other.

    A sample's row and loss must stay the same when it is alone, and when the others' labels are cut.

    Raises:
        FedftError: FEDFT-8403, FEDFT-8404 as `check_start`.

    """
    probe = _few(batch)
    with _without_dropout(model):
        losses, rows = _measure(model, loss, probe, source)
        for others in (_only_first(probe), _with_cut_labels(probe)):
            changed_losses, changed_rows = _measure(model, loss, others, source)
            _refuse_unequal(rows[0], changed_rows[0], "a sample's gradient depends on the others")
            _refuse_unequal(losses[:1], changed_losses[:1], "a sample's loss depends on the others")


def _measure(
    model: nn.Module, loss: PerSampleLoss, batch: Batch, source: PerSampleSource
) -> tuple[Tensor, Tensor]:
    losses = require_per_sample(loss(model, batch), batch_size(batch))
    return losses.detach(), source.backward(losses)


def _ordinary_gradient(
    model: nn.Module, loss: PerSampleLoss, batch: Batch, gradients: PerSampleGradients
) -> Tensor:
    parameters = list(gradients.parameters.values())
    gradients.detach()
    try:
        found = torch.autograd.grad(loss(model, batch).sum(), parameters, allow_unused=True)
    finally:
        gradients.attach()
    filled = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))
    return torch.cat([gradient.flatten() for gradient in filled])


def _refuse_unequal(seen: Tensor, expected: Tensor, what: str) -> None:
    error = float((seen - expected).norm() / expected.norm().clamp(min=1e-12))
    if error > _TOLERANCE and bool(torch.isfinite(expected).all()):
        raise FedftError(
            Code.SAMPLES_DEPENDENT,
            f"{what} (they differ by {error:.2g}, relative)",
            hint="the loss must treat every sample by itself: no mean over the batch's tokens",
        )


def _few(batch: Batch) -> Batch:
    return {
        name: tensor[:_ROWS] if len(tensor) > 1 else tensor.repeat(2, *[1] * (tensor.dim() - 1))
        for name, tensor in batch.items()
    }


def _only_first(batch: Batch) -> Batch:
    return {name: tensor[:1] for name, tensor in batch.items()}


def _with_cut_labels(batch: Batch) -> Batch:
    """Ignore half of the label tokens of all samples but the first, where labels are tokens."""
    labels = batch.get("labels")
    if labels is None or labels.dim() != 2 or labels.is_floating_point():
        return batch
    counted = (labels != -100).long()
    late_half = counted.cumsum(1) > (counted.sum(1, keepdim=True) + 1) // 2
    late_half[0] = False
    return {**batch, "labels": labels.masked_fill(late_half, -100)}


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
