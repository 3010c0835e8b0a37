"""Example-level DP-SGD (Abadi et al. 2016) on everything that is trained.

One step: virtual batches are accumulated, each sample's gradient clipped over all parameters together; then
noise is added once, the sum divided by the expected batch size, and the wrapped optimiser takes the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch
from torch import nn

from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.blocks import Block, BlockMechanism
from fedft.privacy.mechanisms.clipping import FLAT, ClippingKind, LocalCounts
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.privacy.mechanisms.noise import NoiseSource
from fedft.privacy.mechanisms.per_sample import PerSampleGradients
from fedft.privacy.mechanisms.start_checks import (
    Batch,
    PerSampleLoss,
    batch_size,
    check_start,
    refuse_narrow_arithmetic,
    require_per_sample,
)


class DpSgd:
    """Private steps for a model and its optimiser; use as a context manager.

    Guarantee: each `step` is one Gaussian release of multiplier `noise_multiplier` in the training samples,
    if they are drawn by the sampler whose event is charged and `expected_batch` is that sampler's.

    Args:
        model: with adapters attached; every trainable parameter is an adapter's R or of a plain `nn.Linear`.
        optimizer: holds exactly the trainable parameters; its learning rates may change between steps.
        loss: returns (batch,) losses, each a function of one sample alone.
        max_grad_norm: L2 bound C of a sample's gradient over all parameters.
        noise_multiplier: σ; the noise has standard deviation σ C before the division.
        expected_batch: the fixed denominator.
        clipping: how a gradient is brought within its bound.
        blocks: all trainable parameters, in blocks with bounds of their own in place of ``max_grad_norm``.
        noise: for tests; the default is the secure source.

    Raises:
        FedftError: FEDFT-8401, 8405, 8409 (coverage), FEDFT-8406 (the optimiser's parameters), FEDFT-8410
            (too few bits), FEDFT-8501 (a value out of range, blocks that are not everything).

    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: PerSampleLoss,
        *,
        max_grad_norm: float,
        noise_multiplier: float,
        expected_batch: float,
        clipping: ClippingKind = FLAT,
        blocks: Sequence[Block] = (),
        noise: NoiseSource | None = None,
    ) -> None:
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._gradients = PerSampleGradients(model)
        self._mechanism: GaussianMechanism | BlockMechanism
        if blocks:
            self._mechanism = BlockMechanism(
                [(self._gradients.columns(block.parameters), block) for block in blocks],
                noise_multiplier=noise_multiplier,
                denominator=expected_batch,
                clipping=clipping,
                noise=noise,
            )
        else:
            self._mechanism = GaussianMechanism(
                self._gradients.dimension,
                max_norm=max_grad_norm,
                noise_multiplier=noise_multiplier,
                denominator=expected_batch,
                clipping=clipping,
                noise=noise,
            )
        if self._mechanism.dimension != self._gradients.dimension:
            raise FedftError(
                Code.MECHANISM_SETTING_INVALID,
                f"blocks of {self._mechanism.dimension} numbers, {self._gradients.dimension} are trained",
            )
        self._refuse_other_parameters()
        refuse_narrow_arithmetic(model)
        self._checked = False

    @property
    def local_counts(self) -> LocalCounts:
        """Samples seen, clipped and non-finite; private, must not leave the machine."""
        return self._mechanism.local_counts

    def __enter__(self) -> DpSgd:
        self._optimizer.zero_grad(set_to_none=True)
        self._gradients.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gradients.detach()

    def check(self, batch: Batch) -> None:
        """Refuse to start unless rows are gradients of single samples; see `check_start`.

        Best called with made-up samples, such as random tokens of several lengths: a refusal is visible, and
        then it cannot depend on private ones. Without this call the first batch is checked.

        Raises:
            FedftError: FEDFT-8402, 8403, 8404, 8408.

        """
        check_start(self._model, self._loss, batch, self._gradients)
        self._checked = True

    def accumulate(self, batch: Batch) -> None:
        """Add the clipped gradients of a virtual batch's samples; an empty batch adds nothing.

        Args:
            batch: tensors with the samples along the first dimension, on the model's device.

        Raises:
            FedftError: FEDFT-8402, 8403, 8404, 8408; the first batch is also checked, unless `check` was.

        """
        samples = batch_size(batch)
        if samples == 0:
            return
        if not self._checked:
            self.check(batch)
        losses = require_per_sample(self._loss(self._model, batch), samples)
        self._mechanism.add(self._gradients.backward(losses))

    def step(self) -> None:
        """Add noise once to what was accumulated, which may be nothing, and let the optimiser step."""
        self._optimizer.zero_grad(set_to_none=True)
        self._gradients.write(self._mechanism.release())
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _refuse_other_parameters(self) -> None:
        held = [id(p) for group in self._optimizer.param_groups for p in group["params"]]
        wanted = {id(p): name for name, p in self._gradients.parameters.items()}
        if sorted(held) != sorted(wanted):
            missing = [name for key, name in wanted.items() if key not in held]
            raise FedftError(
                Code.OPTIMIZER_PARAMETERS_MISMATCH,
                f"the optimiser holds {len(held)} parameters, {len(wanted)} are trainable"
                + (f"; it lacks {', '.join(missing)}" if missing else ""),
                hint="give it exactly the trainable parameters",
            )
