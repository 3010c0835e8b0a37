"""A training step of a Llama-shaped model: square adapters on NF4 beside PEFT's LoRA on NF4 and bfloat16.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --rounds 9 --tokens 512 --json train_step.json

About 100 million random parameters, all linear layers adapted, bfloat16 arithmetic. The steps take turns, and
the ratio of each turn counts. Memory is measured in a process of its own for each method: the peak of the
resident set over what it was before the model was made, all libraries loaded. "Saved" is what autograd keeps
for backward besides parameters and buffers, per token and layer, in units of bytes times the width d.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedft.adapters import attach, build_frames, resolve_targets
from fedft.quant import NF4, describe, quantise_model
from fedft.training.memory_plan import plan_memory

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

WIDTH, LAYERS, VOCABULARY = 1024, 8, 8192  # with the proportions of TinyLlama
METHODS = ("square r=64 on NF4", "PEFT r=32 on NF4", "PEFT r=32 on bfloat16")


def base_model() -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH * 11 // 4,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        num_key_value_heads=WIDTH // 512,
        vocab_size=VOCABULARY,
        use_cache=False,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def prepared(method: str) -> nn.Module:
    """The model with its adapters, ready to train."""
    model = base_model()
    if method == METHODS[0]:
        quantise_model(model, NF4)
        frames = build_frames(model, resolve_targets(model, "auto"), initialiser="random", rank=64)
        attach(model, frames)
        return model.train()
    import bitsandbytes as bnb
    from peft import LoraConfig, get_peft_model

    if method == METHODS[1]:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and "lm_head" not in name:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, bitsandbytes_layer(bnb, module))
        model.is_loaded_in_4bit = True
    config = LoraConfig(r=32, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config).train()


def bitsandbytes_layer(bnb: Any, module: nn.Linear) -> nn.Module:
    shape = (module.in_features, module.out_features)
    layer = bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4")
    return layer.to("cpu")


class Step:
    """A training step of one method on one batch."""

    def __init__(self, method: str, tokens: int) -> None:
        self.model = prepared(method)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=1e-4)
        self.ids = torch.randint(0, VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(1))

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.model(input_ids=self.ids, labels=self.ids).loss.backward()
        self.optimizer.step()

    def saved_bytes(self) -> int:
        """Bytes that the decoder layers keep for backward, each storage once; weights do not count."""
        own = {t.untyped_storage().data_ptr() for t in [*self.model.parameters(), *self.model.buffers()]}
        kept: dict[int, int] = {}
        inside = 0

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            weight = storage.data_ptr() in own or tensor.dtype == torch.uint8 or tensor.numel() < 4096
            if inside and not weight:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        def enter(*_: object) -> None:
            nonlocal inside
            inside += 1

        def leave(*_: object) -> None:
            nonlocal inside
            inside -= 1

        body = next(m for m in self.model.modules() if type(m).__name__ == "LlamaModel")
        for layer in body.layers:
            layer.register_forward_pre_hook(enter)
            layer.register_forward_hook(leave)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            hidden = body(inputs_embeds=embedded(body, self.ids)).last_hidden_state
        del hidden
        return sum(kept.values())


def embedded(body: Any, ids: Tensor) -> Tensor:
    return body.embed_tokens(ids).detach().requires_grad_()


def resident(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def load_libraries() -> None:
    """So that their size does not count as the model's."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401


def peak_memory(method: str, tokens: int) -> tuple[int, int]:
    """(bytes above the start once ready, bytes above the start at the peak of three steps)."""
    torch.set_num_threads(1)
    load_libraries()
    before = resident("VmRSS")
    step = Step(method, tokens)
    step()
    ready = resident("VmRSS") - before
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak of making the model
    for _ in range(3):
        step()
    return ready, resident("VmHWM") - before


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--json", help="write the results to this file too")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    print(describe()["CPU kernels"])

    memory = {}
    for method in METHODS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory[method] = pool.apply(peak_memory, (method, arguments.tokens))
    steps = {method: Step(method, arguments.tokens) for method in METHODS}
    saved = {method: step.saved_bytes() / arguments.tokens / LAYERS / WIDTH for method, step in steps.items()}
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for turn in range(arguments.rounds + 1):
        for method, step in steps.items():
            start = time.thread_time()
            step()
            if turn:  # the first turn warms up
                times[method].append(time.thread_time() - start)

    rows = {}
    for method in METHODS:
        ratio = float(np.median(np.array(times[method]) / np.array(times[METHODS[0]])))
        rows[method] = {
            "step_ms": float(np.median(times[method])) * 1e3,
            "ratio": ratio,
            "peak_mib": memory[method][1] / 2**20,
            "saved_bytes_d": saved[method],
        }
        peak, kept = rows[method]["peak_mib"], saved[method]
        time_ms = rows[method]["step_ms"]
        print(f"{method:24} {time_ms:8.0f} ms {ratio:5.2f}x, peak {peak:6.0f} MiB, saved {kept:5.1f} bytes d")
    planned = plan_memory(
        base_model,
        lambda model: resolve_targets(model, "auto"),
        rank=64,
        batch=1,
        tokens=arguments.tokens,
        quantised=True,
    )
    print(f"{METHODS[0]}: peak planned {planned.peak / 2**20:.0f} MiB")
    if arguments.json:
        facts = {"machine": describe(), "tokens": arguments.tokens, "planned_mib": planned.peak / 2**20}
        with open(arguments.json, "w") as file:
            json.dump(facts | {"methods": rows}, file, indent=1)


if __name__ == "__main__":
    main()
