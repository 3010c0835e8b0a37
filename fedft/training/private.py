"""Private local training of one client: DP-SGD steps under the same optimiser and schedule as `loop`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from fedft.config.schema import PrivacySection, TrainingSection
from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.blocks import Block, block_noise
from fedft.privacy.mechanisms.dp_sgd import DpSgd
from fedft.registries import CLIPPINGS
from fedft.training.loop import make_optimizer, set_rates
from fedft.training.private_schedule import PrivateRounds
from fedft.training.task import Task, batches_by_length, device_of, to_device


def train_private(
    model: nn.Module,
    task: Task[Any],
    samples: Callable[[], Sequence[Any]],
    section: TrainingSection,
    rounds: PrivateRounds,
    *,
    privacy: PrivacySection,
    probe: Sequence[Any],
    adapters: Sequence[nn.Parameter],
    head: Sequence[nn.Parameter] = (),
    first_step: int = 0,
    total_steps: int = 0,
) -> None:
    """Train parameters in place for one round, privately; nothing else about the samples comes out.

    Guarantee: what the parameters are afterwards is a release whose cost is ``rounds.event()``, for one
    record that is replaced by one that gives no sample. ``samples`` is called once, when everything that can
    be tried on made-up samples has passed; the event must be charged before it returns.
    The noise and the choice of batches come from a secure source, so two calls never agree.

    Args:
        model: the model with its adapters attached; only the given parameters change.
        task: gives batches and losses.
        samples: gives what came of the client's records. The sampler draws from the records, so a record
            that was dropped holds a place that contributes nothing, whatever their number.
        section: batch and micro-batch size, learning rates, schedule.
        rounds: sampler, steps and noise.
        privacy: the bound of one sample's gradient over all parameters, or those of adapters and head apart.
        probe: made-up samples, on which the step is checked before it sees a private one.
        adapters: the trained parameters of the adapters.
        head: the classification head's parameters.
        first_step: optimiser steps of the run before this round, for the schedule.
        total_steps: optimiser steps of the whole run; 0 means this round is the whole run.

    Raises:
        FedftError: FEDFT-3031 nothing to train, FEDFT-8401 to 8409 the step is not private.

    """
    if not (adapters or head):
        raise FedftError(Code.NOTHING_TO_TRAIN, "nothing to train: 0 matrices")
    model.eval()
    blocks = _blocks(privacy, adapters, head)
    optimizer = make_optimizer(section, adapters, head, _noise(privacy, rounds, blocks))
    peaks = [group["lr"] for group in optimizer.param_groups]
    step_of_one = DpSgd(
        model,
        optimizer,
        task.per_sample_loss,
        max_grad_norm=privacy.max_grad_norm,
        noise_multiplier=rounds.noise_multiplier,
        expected_batch=rounds.sampler.expected_batch,
        clipping=CLIPPINGS.get(privacy.clipping),
        blocks=blocks,
    )
    device = device_of(model)
    with step_of_one as private:
        private.check(to_device(task.collate(probe), device))
        revealed = samples()
        for step, indices in enumerate(rounds.sampler.batches(rounds.steps)):
            set_rates(optimizer, peaks, section, first_step + step, total_steps or rounds.steps)
            drawn = [revealed[index] for index in indices.tolist() if index < len(revealed)]
            for chunk in batches_by_length(drawn, section.micro_batch_size or max(len(drawn), 1)):
                private.accumulate(to_device(task.collate(chunk), device))
            private.step()


def _blocks(
    privacy: PrivacySection, adapters: Sequence[nn.Parameter], head: Sequence[nn.Parameter]
) -> list[Block]:
    """Return adapters and head as blocks where they have bounds apart, else none."""
    if not (privacy.head_max_norm and adapters and head):
        return []
    return [
        Block(tuple(adapters), privacy.max_grad_norm, 1 - privacy.head_share),
        Block(tuple(head), privacy.head_max_norm, privacy.head_share),
    ]


def _noise(privacy: PrivacySection, rounds: PrivateRounds, blocks: Sequence[Block]) -> tuple[float, float]:
    """Return the deviation of the noise in each entry of the mean gradients of adapters and head."""
    sigma, batch = rounds.noise_multiplier, rounds.sampler.expected_batch
    if not blocks:
        one = sigma * privacy.max_grad_norm / batch
        return one, one
    first, second = (block_noise(sigma, block.share) * block.max_norm / batch for block in blocks)
    return first, second
