"""A frame from private gradients: `dp-sketch`.

LoRA-SB spans its frame by the gradient G (out, in) of the full weight, which no client may show. A client
instead releases, for each layer, Y = G Ω and Z = Ψ G with public random Ω (in, k) and Ψ (k, out), the two
sides of a randomised range finder (Halko, Martinsson and Tropp 2011). The unit is the example: example i
contributes the concatenation over all layers of Gᵢ Ω and Ψ Gᵢ, that vector is clipped to C, the sum over
examples is noised once, and the ledger is charged one Gaussian release. What the server does with the noised
sketches, sum them over clients and orthonormalise, is post-processing.

Ω and Ψ have independent N(0, 1/k) entries, so that E|Gᵢ Ω|² = |Gᵢ|² = E|Ψ Gᵢ|² and both sides weigh the same.
Only directions matter, so a bound below the usual norm, which makes every example weigh the same, is the
natural one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.gaussian import Mechanism
from fedft.privacy.mechanisms.per_sample import refuse_batch_norm
from fedft.privacy.mechanisms.start_checks import (
    Batch,
    PerSampleLoss,
    batch_size,
    check_independent,
    refuse_narrow_arithmetic,
    require_per_sample,
)


class Probe(NamedTuple):
    """What one layer's gradient is multiplied with: Ω (in, k) and Ψ (k, out), float32."""

    right: Tensor
    left: Tensor


class Sketch(NamedTuple):
    """One layer's Y = G Ω (out, k) and Z = Ψ G (k, in), float32."""

    columns: Tensor
    rows: Tensor


class SketchPlan:
    """Which layers are sketched with what, the same at every client.

    Args:
        probes: by the name of a linear module.

    Attributes:
        dimension: length d of a flat sketch over all layers.

    """

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self.probes = dict(probes)
        self._spans: dict[str, tuple[slice, slice]] = {}
        self.dimension = 0
        for name, probe in self.probes.items():
            (inner, width), (_, outer) = probe.right.shape, probe.left.shape
            start, middle = self.dimension, self.dimension + outer * width
            self.dimension = middle + width * inner
            self._spans[name] = slice(start, middle), slice(middle, self.dimension)

    @classmethod
    def random(cls, shapes: Mapping[str, tuple[int, int]], width: int, seed: int) -> SketchPlan:
        """Draw Ω and Ψ from a public seed.

        Args:
            shapes: (out, in) of each layer's weight.
            width: k, a few more than the frame's rank.
            seed: public, shared by the run.

        Raises:
            FedftError: FEDFT-8601 where k does not fit a layer.

        """
        rng = np.random.default_rng(seed)
        probes = {}
        for name, (outer, inner) in sorted(shapes.items()):
            if not 1 <= width <= min(outer, inner):
                raise FedftError(
                    Code.SKETCH_SIZE_INVALID,
                    f"a sketch of width {width} does not fit {name} of shape {(outer, inner)}",
                )
            probes[name] = Probe(_normal(rng, (inner, width)), _normal(rng, (width, outer)))
        return cls(probes)

    def blocks(self, name: str, flat: Tensor) -> Sketch:
        """Return views of one layer's part of (..., d): (..., out, k) and (..., k, in)."""
        first, second = self._spans[name]
        probe = self.probes[name]
        return Sketch(
            flat[..., first].view(*flat.shape[:-1], probe.left.shape[1], -1),
            flat[..., second].view(*flat.shape[:-1], -1, probe.right.shape[0]),
        )


def private_sketch(
    model: nn.Module,
    loss: PerSampleLoss,
    batches: Iterable[Batch],
    plan: SketchPlan,
    mechanism: Mechanism,
    *,
    probe: Batch,
) -> Tensor:
    """Return the noised mean sketch of the examples' gradients, (d,) float32 on the CPU.

    Args:
        model: the frozen base without adapters; it is put into evaluation mode while this runs.
        loss: returns (batch,) losses.
        batches: the examples that the sampler whose event is charged has drawn, each once; iterated over when
            the checks have passed.
        plan: what to sketch.
        mechanism: of dimension `plan.dimension`; charge its release before ``batches`` gives the first.
        probe: made-up samples, on which everything is checked: a refusal is visible.

    Raises:
        FedftError: FEDFT-8403, 8404, 8405, 8408 (samples that see each other), FEDFT-8410 (too few bits),
            FEDFT-8602 (a layer of the plan that the model does not use), FEDFT-8505 (another dimension).

    """
    refuse_batch_norm(model)
    refuse_narrow_arithmetic(model)
    recorder = _Recorder(model, plan)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        check_independent(model, loss, probe, recorder)
        for batch in batches:
            samples = batch_size(batch)
            if samples:
                mechanism.add(recorder.backward(require_per_sample(loss(model, batch), samples)))
    finally:
        recorder.close()
        for module, training in modes.items():
            module.training = training
    return mechanism.release()


def frames_from_sketch(plan: SketchPlan, flat: Tensor, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return orthonormal B (out, r) and A (r, in), float32, for each layer of a sum of noised sketches.

    Args:
        plan: the clients' plan.
        flat: (d,) sum or mean over clients.
        rank: r, at most the sketch's width.

    Raises:
        FedftError: FEDFT-8601 for a rank above the width.

    """
    frames = {}
    for name, probe in plan.probes.items():
        if rank > probe.right.shape[1]:
            raise FedftError(
                Code.SKETCH_SIZE_INVALID,
                f"rank {rank} exceeds the width {probe.right.shape[1]} of {name}'s sketch",
            )
        sketch = plan.blocks(name, flat.double())
        b = _leading_left(sketch.columns, rank)
        a = _leading_left(sketch.rows.mT, rank).mT
        frames[name] = b.float(), a.float()
    return frames


class _Recorder:
    """Takes per-sample sketches of the plan's layers from one backward pass."""

    def __init__(self, model: nn.Module, plan: SketchPlan) -> None:
        self.plan = plan
        self._anchor = torch.zeros((), requires_grad=True)  # gives outputs a gradient though no weight does
        self._rows = torch.zeros(0)
        self._used: set[str] = set()
        self._device = next(model.parameters()).device
        self._probes = {
            name: Probe(*(t.to(self._device) for t in probe)) for name, probe in plan.probes.items()
        }
        self._hooks = [self._watch(model.get_submodule(name), name) for name in plan.probes]

    def backward(self, losses: Tensor) -> Tensor:
        """Return (batch, d) float32 rows, one for each loss.

        Raises:
            FedftError: FEDFT-8602 (a layer without use), FEDFT-8408 (a layer saw another batch size).

        """
        self._rows = torch.zeros(len(losses), self.plan.dimension, device=self._device)
        self._used.clear()
        torch.autograd.grad(losses.sum(), [self._anchor])
        unused = [name for name in self.plan.probes if name not in self._used]
        if unused:
            raise FedftError(Code.LAYER_WITHOUT_GRADIENT, f"no gradient reaches {', '.join(unused)}")
        return self._rows

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def record(self, name: str, x: Tensor, grad: Tensor) -> None:
        """Add one use's part: x (batch, ..., in), grad (batch, ..., out)."""
        x, grad = (t.reshape(len(t), -1, t.shape[-1]).float() for t in (x, grad))
        if len(x) != len(self._rows):
            raise FedftError(
                Code.BATCH_SIZE_MISMATCH,
                f"layer {name} saw {len(x)} rows in a batch of {len(self._rows)} samples",
            )
        probe, sketch = self._probes[name], self.plan.blocks(name, self._rows)
        sketch.columns.add_(grad.mT @ (x @ probe.right))
        sketch.rows.add_((grad @ probe.left.mT).mT @ x)
        self._used.add(name)

    def _watch(self, module: nn.Module, name: str) -> RemovableHandle:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return output
            return _Watch.apply(output, args[0].detach(), self._anchor, self, name)  # type: ignore[no-any-return, no-untyped-call]

        return module.register_forward_hook(hook)


class _Watch(torch.autograd.Function):
    """Passes an output through and hands its gradient to the recorder."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, x: Tensor, anchor: Tensor, recorder: _Recorder, name: str
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.recorder, ctx.name = recorder, name
        return output.view_as(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        ctx.recorder.record(ctx.name, x, grad)
        return (grad if ctx.needs_input_grad[0] else None), None, torch.zeros(()), None, None


def _leading_left(matrix: Tensor, rank: int) -> Tensor:
    """Return the leading left singular vectors, each with its largest entry positive."""
    vectors: Tensor = torch.linalg.svd(matrix, full_matrices=False).U[:, :rank]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors.where(largest >= 0, -vectors)


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Tensor:
    width = min(shape)
    return torch.from_numpy(rng.standard_normal(shape) / np.sqrt(width)).float()
