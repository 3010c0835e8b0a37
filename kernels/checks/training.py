"""A training step of a 7B-shaped model: square adapters on NF4, private and not, beside PEFT's QLoRA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from checks.speed import Row, bitsandbytes_layer, milliseconds
from fedft.adapters import AdaptedLinear, attach, build_frames, resolve_targets
from fedft.quant import NF4, quantisable, quantise_model
from fedft.quant.cuda_library import CudaLibrary

SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32000}
TOKENS = 2048


def model_of(layers: int, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, use_cache=False)
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()


class PerSample:
    """Takes u and v of every adapted layer, as differentially private training does."""

    def __init__(self, kernels: CudaLibrary | None, batch: int, device: torch.device) -> None:
        self.kernels, self.gradients = kernels, list[tuple[AdaptedLinear, Tensor]]()
        self.norms = torch.zeros(batch, device=device)
        self.cuts = torch.arange(batch + 1, device=device) * TOKENS

    def record(self, layer: AdaptedLinear, u: Tensor, v: Tensor) -> None:
        if self.kernels is None:
            gradient = torch.bmm(v.float().mT, u.float())
            self.norms += gradient.flatten(1).square().sum(1)
        else:
            rows = u.flatten(0, 1).contiguous(), v.flatten(0, 1).contiguous()
            gradient = self.kernels.per_sample_gradients(*rows, self.cuts, 1.0, self.norms, add=True)
        self.gradients.append((layer, gradient))

    def finish(self) -> None:
        factors = (1.0 / self.norms.sqrt()).clamp(max=1.0)
        for layer, gradient in self.gradients:
            if self.kernels is None:
                layer.R.grad = torch.einsum("b,bij->ij", factors, gradient)
            else:
                layer.R.grad = self.kernels.clipped_sum(gradient, self.norms, 1.0)
        self.gradients.clear()
        self.norms.zero_()


def step_time(
    model: Any, device: torch.device, batch: int, sink: PerSample | None = None
) -> tuple[float, float]:
    """Milliseconds of a step, and GiB at its peak."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-4)
    ids = torch.randint(0, SHAPE["vocab_size"], (batch, TOKENS), device=device)

    def step(_: int) -> None:
        optimiser.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        if sink is not None:
            sink.finish()
        optimiser.step()

    torch.cuda.reset_peak_memory_stats()
    time = milliseconds(step, repeats=5)
    return time, torch.cuda.max_memory_allocated() / 2**30


def steps(
    kernels: CudaLibrary | None, device: torch.device, layers: int = 32, batch: int = 4
) -> Iterator[Row]:
    name = f"step of {layers} layers of a 7B model, {batch}x{TOKENS} tokens"
    model = model_of(layers, device)
    quantise_model(model, NF4)
    frames = build_frames(model, resolve_targets(model, "auto"), initialiser="random", rank=64)
    attach(model, frames)
    time, peak = step_time(model, device, batch)
    yield f"{name}: square r=64 on NF4", f"{time:.0f} ms, {peak:.1f} GiB", ""
    for label, used in (("torch", None), ("kernels", kernels)):
        sink = PerSample(used, batch, device)
        for module in model.modules():
            if isinstance(module, AdaptedLinear):
                module.per_sample_sink = sink
        private, peak = step_time(model, device, batch, sink)
        yield f"{name}: the same, private, by {label}", f"{private:.0f} ms, {peak:.1f} GiB", ""
    del model
    torch.cuda.empty_cache()
    yield from qlora(name, device, layers, batch, time)


def qlora(name: str, device: torch.device, layers: int, batch: int, ours: float) -> Iterator[Row]:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        yield f"{name}: PEFT", "not installed", ""
        return
    model = model_of(layers, device)
    for path in quantisable(model):
        layer = bitsandbytes_layer(model.get_submodule(path))
        if layer is None:
            yield f"{name}: PEFT r=32 on NF4", "bitsandbytes is not installed", ""
            return
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    model.is_loaded_in_4bit = True
    config = LoraConfig(r=32, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: nn.Module = get_peft_model(model, config).train()
    time, peak = step_time(adapted, device, batch)
    told = f"{time:.0f} ms, {peak:.1f} GiB, {time / ours:.2f}x the square adapters' time"
    yield f"{name}: PEFT r=32 on NF4", told, "1.00x or more"
