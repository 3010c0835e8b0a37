"""Local training of one client over its samples, nothing random but the order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from fedft import clock
from fedft.config.schema import TrainingSection
from fedft.data.samples import CausalSample, ClassSample
from fedft.errors import Code, FedftError
from fedft.registries import OPTIMIZERS
from fedft.training.iterate_mean import IterateMean
from fedft.training.optimizer import ParameterGroup
from fedft.training.schedule import local_steps, rate_factor
from fedft.training.task import Task, batches_by_length, device_of, to_device

S = TypeVar("S", CausalSample, ClassSample)


@dataclass(frozen=True)
class TrainReport:
    """What one client did in one round.

    Attributes:
        steps: optimiser steps.
        examples: samples trained on, repeats counted.
        loss: mean over them of the loss before each one's step, nats.
        seconds: wall time.

    """

    steps: int
    examples: int
    loss: float
    seconds: float


def train_local(
    model: nn.Module,
    task: Task[S],
    samples: Sequence[S],
    section: TrainingSection,
    *,
    adapters: Sequence[nn.Parameter],
    head: Sequence[nn.Parameter] = (),
    generator: torch.Generator,
    first_step: int = 0,
    total_steps: int = 0,
    mean: IterateMean | None = None,
) -> TrainReport:
    """Train parameters in place for one round.

    The model stays in evaluation mode: the base is frozen, and dropout would only blur it. The order
    of the samples comes from ``generator`` alone, so the result is a function of the arguments (on one
    machine, with one number of threads).

    Args:
        model: the model with its adapters attached; only the given parameters change.
        task: gives batches and losses.
        samples: this client's samples.
        section: steps or epochs, batch size, learning rates, schedule, clipping.
        adapters: the trained parameters of the adapters.
        head: the classification head's parameters, trained at ``head_learning_rate``.
        generator: a CPU generator of this client and round.
        first_step: optimiser steps of the run before this round, for the schedule.
        total_steps: optimiser steps of the whole run; 0 means this round is the whole run.
        mean: takes in every iterate.

    Raises:
        FedftError: FEDFT-3030 the loss or the gradient is not finite, FEDFT-3031 nothing to train.

    """
    started = clock.monotonic()
    if not samples or not (adapters or head):
        raise FedftError(
            Code.NOTHING_TO_TRAIN, f"nothing to train: {len(samples)} samples, {len(adapters)} matrices"
        )
    model.eval()
    steps = local_steps(section, len(samples))
    optimizer = make_optimizer(section, adapters, head)
    peaks = [group["lr"] for group in optimizer.param_groups]
    examples, loss_sum = 0, 0.0
    for step, batch in enumerate(_batches(samples, section, steps, generator)):
        set_rates(optimizer, peaks, section, first_step + step, total_steps or steps)
        optimizer.zero_grad()
        loss_sum += _accumulate(model, task, batch, section)
        _clip([*adapters, *head], section.max_grad_norm, first_step + step)
        optimizer.step()
        if mean is not None:
            mean.add()
        examples += len(batch)
    optimizer.zero_grad()
    return TrainReport(steps, examples, loss_sum / examples, clock.monotonic() - started)


def make_optimizer(
    section: TrainingSection,
    adapters: Sequence[nn.Parameter],
    head: Sequence[nn.Parameter],
    noise: tuple[float, float] = (0.0, 0.0),
) -> torch.optim.Optimizer:
    """Return the section's optimiser over the adapters, and over the head at its own learning rate.

    ``noise`` is the standard deviation of the noise in the gradients of adapters and head.
    """
    rate = section.learning_rate
    groups = [
        ParameterGroup(adapters, rate, noise[0]),
        ParameterGroup(head, section.head_learning_rate or rate, noise[1]),
    ]
    return OPTIMIZERS.get(section.optimizer).make([group for group in groups if group.parameters], section)


def set_rates(
    optimizer: torch.optim.Optimizer, peaks: Sequence[float], section: TrainingSection, step: int, total: int
) -> None:
    """Set each group's learning rate for a step, counted from 0 over ``total`` steps of the run."""
    factor = rate_factor(section, step, total)
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak * factor


def _batches(
    samples: Sequence[S], section: TrainingSection, steps: int, generator: torch.Generator
) -> Iterator[list[S]]:
    """Batches cut from shuffled passes over the samples, laid end to end.

    With ``section.steps`` every batch is full; with epochs each sample comes exactly that often, and
    the last batch may be short.
    """
    count = steps * section.batch_size if section.steps else section.epochs * len(samples)
    order: list[int] = []
    while len(order) < count:
        order += torch.randperm(len(samples), generator=generator).tolist()
    for start in range(0, count, section.batch_size):
        yield [samples[index] for index in order[start : min(start + section.batch_size, count)]]


def _accumulate(model: nn.Module, task: Task[S], batch: Sequence[S], section: TrainingSection) -> float:
    """Add the gradient of the batch's mean loss, micro-batch by micro-batch; return the summed loss.

    A micro-batch holds samples of similar length, so that little is padded; the mean is over all.
    """
    device = device_of(model)
    size = section.micro_batch_size or len(batch)
    total = 0.0
    for chunk in batches_by_length(batch, size):
        inputs = to_device(task.collate(chunk), device)
        loss = task.per_sample_loss(model, inputs).sum()
        (loss / len(batch)).backward()
        total += loss.item()
    return total


def _clip(parameters: Sequence[nn.Parameter], max_norm: float, step: int) -> None:
    """Clip the gradient's L2 norm over all parameters (0: leave it), and refuse one that is not finite."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not bool(torch.isfinite(norm)):
        raise FedftError(
            Code.GRADIENT_NOT_FINITE,
            f"the gradient's norm is {norm.item()} at step {step + 1} of the run",
            hint="lower training.learning_rate, or set model.dtype to float32",
        )
    if max_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
