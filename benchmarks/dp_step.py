"""The price of a private step: DP ÷ plain, beside Opacus' hooks and ghost clipping on the same model.

    python benchmarks/dp_step.py
    python benchmarks/dp_step.py --shapes 2x64 8x128 --rounds 15 --rank 16

A Llama of 42 million frozen parameters with 56 adapted layers, random weights. All arms do one optimiser step
on one batch; they take turns, and every ratio is the median over rounds of that round's ratio, so that a busy
machine slows both sides. CPU time, one thread.

Opacus cannot take the adapted layer, so it gets the same function spelt with three linear modules a layer;
its arms are given against the plain step of that model too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from fedft.adapters import AdaptedLinear, attach, build_frames, resolve_targets
from fedft.privacy.mechanisms.dp_sgd import DpSgd

CLIP, SIGMA = 1.0, 1.0
Step = Callable[[], None]


class LinearAdapter(nn.Module):
    """The adapted layer's function with plain linear modules, which Opacus knows."""

    def __init__(self, layer: AdaptedLinear) -> None:
        super().__init__()
        self.base = layer.base
        for name, weight in (("down", layer.A), ("core", layer.R), ("up", layer.B)):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            linear.weight.data.copy_(weight.data)
            linear.requires_grad_(name == "core")
            setattr(self, name, linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.core(self.down(x)))


def make_model(rank: int) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16_000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8
    )
    model = AutoModelForCausalLM.from_config(config).train()
    frames = build_frames(model, resolve_targets(model, "auto"), initialiser="random", rank=rank)
    attach(model, frames)
    return model


def as_linear_modules(model: nn.Module) -> nn.Module:
    for name, layer in list(model.named_modules()):
        if isinstance(layer, AdaptedLinear):
            model.set_submodule(name, LinearAdapter(layer))
    return model


def losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    ids = batch["input_ids"]
    logits = model(input_ids=ids, use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none").mean(1)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def plain(model: nn.Module, batch: Mapping[str, Tensor]) -> Step:
    optimizer = adamw(model)

    def step() -> None:
        optimizer.zero_grad()
        losses(model, batch).mean().backward()
        optimizer.step()

    return step


def ours(model: nn.Module, batch: Mapping[str, Tensor]) -> Step:
    private = DpSgd(
        model,
        adamw(model),
        losses,
        max_grad_norm=CLIP,
        noise_multiplier=SIGMA,
        expected_batch=len(batch["input_ids"]),
    )

    def step() -> None:
        with private:
            private.accumulate(batch)
            private.step()

    return step


def opacus_hooks(model: nn.Module, batch: Mapping[str, Tensor]) -> Step:
    hooked = GradSampleModule(model)
    optimizer = DPOptimizer(
        adamw(hooked),
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=len(batch["input_ids"]),
    )

    def step() -> None:
        optimizer.zero_grad()
        losses(hooked, batch).mean().backward()
        optimizer.step()

    return step


def opacus_ghost(model: nn.Module, batch: Mapping[str, Tensor]) -> Step:
    hooked = GradSampleModuleFastGradientClipping(model, max_grad_norm=CLIP, use_ghost_clipping=True)
    optimizer = DPOptimizerFastGradientClipping(
        adamw(hooked),
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=len(batch["input_ids"]),
    )

    def step() -> None:
        optimizer.zero_grad()
        DPTensorFastGradientClipping(hooked, optimizer, losses(hooked, batch)).backward()
        optimizer.step()

    return step


def measure(steps: Mapping[str, Step], rounds: int) -> dict[str, np.ndarray]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # also runs the checks before the first private step
        step()
        step()
    for number in range(rounds):
        names = list(steps)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.process_time()
            steps[name]()
            times[name].append(time.process_time() - start)
    return {name: np.array(values) for name, values in times.items()}


def run(shape: str, rank: int, rounds: int) -> dict[str, object]:
    samples, tokens = map(int, shape.split("x"))
    batch = {"input_ids": torch.randint(0, 16_000, (samples, tokens))}
    steps = {"plain": plain(make_model(rank), batch), "ours": ours(make_model(rank), batch)}
    twins = {"plain, linear modules": plain, "opacus hooks": opacus_hooks, "opacus ghost": opacus_ghost}
    steps |= {name: arm(as_linear_modules(make_model(rank)), batch) for name, arm in twins.items()}
    times = measure(steps, rounds)

    def ratio(arm: str, base: str) -> float:
        return round(float(np.median(times[arm] / times[base])), 4)

    return {
        "shape": shape,
        "tokens": samples * tokens,
        "rank": rank,
        "plain_seconds": round(float(np.median(times["plain"])), 3),
        "over_plain": {name: ratio(name, "plain") for name in times if name != "plain"},
        "over_own_plain": {name: ratio(name, "plain, linear modules") for name in list(twins)[1:]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["2x64", "8x128"], help="samples x tokens")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rank", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for shape in arguments.shapes:
        print(json.dumps(run(shape, arguments.rank, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
