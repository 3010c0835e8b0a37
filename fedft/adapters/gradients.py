"""The gradient of the full weight of each target, over samples that may be seen by everyone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedft.adapters import frozen
from fedft.errors import Code, FedftError

PerSampleLoss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class SampleGradients:
    """Computes ``G = (1/n) Σ ∇_W loss_i`` of target weights over n samples.

    Args:
        batches: the samples, gone through once for every group of layers, so not a one-time iterator.
        per_sample_loss: ``(model, batch) -> (batch,)``, one loss for each sample.
        layers_at_once: how many full gradients are held at a time; more means fewer passes.

    """

    batches: Iterable[Any]
    per_sample_loss: PerSampleLoss
    layers_at_once: int = 1

    def __call__(self, model: nn.Module, targets: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, G), ``(out, in)`` float32 on the model's device, in the order of the targets.

        The model runs in evaluation mode; its flags, its weights and the random generators are as before
        afterwards. Weights of any storage can be asked for: G is accumulated from each target's inputs
        and output gradients, so no weight needs a gradient.

        Raises:
            FedftError: FEDFT-2108 (samples or losses unusable).

        """
        if self.layers_at_once < 1 or iter(self.batches) is self.batches:
            raise FedftError(
                Code.GRADIENT_SAMPLES_UNUSABLE,
                f"gradients need batches that can be gone through again and layers_at_once >= 1, "
                f"got {type(self.batches).__name__} and {self.layers_at_once}",
            )
        for start in range(0, len(targets), self.layers_at_once):
            sums = self._pass(model, targets[start : start + self.layers_at_once])
            while sums:
                yield sums.popitem()

    def _pass(self, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
        taps = [_Tap(model.get_submodule(name)) for name in reversed(names)]
        count = 0
        with _frozen_evaluation(model), torch.enable_grad():
            try:
                for batch in self.batches:
                    losses = _checked_losses(self.per_sample_loss(model, batch))
                    count += len(losses)
                    if losses.requires_grad:  # not so when no target was used
                        torch.autograd.backward(losses.sum(), inputs=[tap.anchor for tap in taps])
            finally:
                for tap in taps:
                    tap.remove()
        if not count:
            raise FedftError(
                Code.GRADIENT_SAMPLES_UNUSABLE, "there is not one sample to compute gradients from"
            )
        return {name: tap.total.div_(count) for name, tap in zip(reversed(names), taps, strict=True)}


class _Tap:
    """Accumulates ``Σ gᵀ x`` of one linear module in float32, while attached."""

    def __init__(self, module: nn.Module) -> None:
        self.shape = frozen.shape_of(module)
        self.total = torch.zeros(0)
        # Gives the output a gradient although no weight asks for one.
        self.anchor = torch.zeros((), requires_grad=True)
        self._hook = module.register_forward_hook(self._watch)

    def _watch(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _Watch.apply(output, args[0].detach(), self.anchor, self)  # type: ignore[no-any-return, no-untyped-call]

    def add(self, grad: Tensor, x: Tensor) -> None:
        """Add the contribution of one use of the module."""
        g, rows = grad.reshape(-1, self.shape[0]).float(), x.reshape(-1, self.shape[1]).float()
        if not self.total.numel():
            self.total = torch.zeros(self.shape, device=g.device)
        self.total.addmm_(g.T, rows)

    def remove(self) -> None:
        """Leave the module as it was."""
        self._hook.remove()
        if not self.total.numel():
            self.total = torch.zeros(self.shape)


class _Watch(torch.autograd.Function):
    """Passes a module's output through and hands its gradient to a tap."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, anchor: Tensor, tap: _Tap) -> Tensor:
        ctx.save_for_backward(x)
        ctx.tap = tap
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, None]:
        (x,) = ctx.saved_tensors
        ctx.tap.add(grad, x)
        return (grad if ctx.needs_input_grad[0] else None), None, torch.zeros(()), None


@contextmanager
def _frozen_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with no parameter asking for a gradient; puts every flag back."""
    training = [(module, module.training) for module in model.modules()]
    requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)


def _checked_losses(losses: Tensor) -> Tensor:
    if losses.dim() != 1 or not len(losses):
        raise FedftError(
            Code.GRADIENT_SAMPLES_UNUSABLE,
            f"the per-sample loss has shape {tuple(losses.shape)}, expected (batch,) of at least 1",
        )
    return losses


def checked_gradient(name: str, gradient: Tensor) -> None:
    """Raise FEDFT-2107 when the gradient is zero or not finite."""
    if not torch.isfinite(gradient).all():
        raise FedftError(Code.MATRIX_DEGENERATE, f"{name}: the gradient holds a value that is not finite")
    if not gradient.any():
        raise FedftError(
            Code.MATRIX_DEGENERATE,
            f"{name}: the gradient is zero everywhere",
            hint="the samples do not reach this weight; check their labels and the target modules",
        )
