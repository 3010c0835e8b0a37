# python simulations/demo_model/train.py --out fedft/models/demo
"""Train the demo's base model: a character-level Llama that knows plain arithmetic and no stories."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent))
from tokenizer import build_tokenizer

from fedft.data.word_problems import BARE, NOISY, STORIES, Record, generate

SEED = 20
MAX_LENGTH = 256
Batch = tuple[torch.Tensor, torch.Tensor]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--checkpoint", type=Path, help="file to go on from after an interruption")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def encode(records: list[Record], tokenizer: PreTrainedTokenizerFast) -> list[tuple[list[int], int]]:
    """Token ids of every record, and where its answer starts."""
    samples = []
    for record in records:
        prompt = tokenizer(record["prompt"])["input_ids"]
        answer = tokenizer(record["completion"], add_special_tokens=False)["input_ids"]
        samples.append((prompt + answer + [tokenizer.eos_token_id], len(prompt)))
    return sorted(samples, key=lambda sample: len(sample[0]))


def collate(samples: list[tuple[list[int], int]]) -> Batch:
    length = max(len(ids) for ids, _ in samples)
    inputs = torch.zeros(len(samples), length, dtype=torch.long)
    labels = torch.full((len(samples), length), -100)
    for row, (ids, start) in enumerate(samples):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, start : len(ids)] = torch.tensor(ids[start:])
    return inputs, labels


def loss_sum(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    inputs, labels = batch
    logits = model(input_ids=inputs, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


@torch.no_grad()
def exact_match(model: LlamaForCausalLM, samples: list[tuple[list[int], int]]) -> float:
    """Share of samples whose whole answer is the most likely one, token by token."""
    right = 0
    for begin in range(0, len(samples), 100):
        inputs, labels = collate(samples[begin : begin + 100])
        predicted = model(input_ids=inputs, use_cache=False).logits[:, :-1].argmax(-1)
        wanted = labels[:, 1:]
        right += int(((predicted == wanted) | (wanted == -100)).all(-1).sum())
    return right / len(samples)


def report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Exact match of every family on problems of the test split."""
    families = {**BARE, **NOISY, **STORIES}
    return {
        name: exact_match(model, encode(generate({name: family}, "test", 200, SEED + 1), tokenizer))
        for name, family in families.items()
    }


def rate(step: int, total: int, peak: float) -> float:
    warmup = total // 20
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def make_batches(step: int, batch_size: int, tokenizer: PreTrainedTokenizerFast) -> list[Batch]:
    """One step's samples, the short and the long ones apart."""
    families = {**BARE, **NOISY}
    per_family = batch_size // len(families)
    samples = encode(generate(families, "train", per_family, SEED * 1_000_000 + step), tokenizer)
    half = len(samples) // 2
    return [collate(samples[:half]), collate(samples[half:])]


def _resume(checkpoint: Path | None, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Load what an interrupted run left and return the next step; each step's data has its own seed."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    step, weights, moments = torch.load(checkpoint)
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    return int(step)


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    tokenizer = build_tokenizer(MAX_LENGTH)
    model = build_model(tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    started, running = time.monotonic(), 0.0
    for step in range(_resume(options.checkpoint, model, optimizer), options.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, options.steps, options.learning_rate)
        batches = make_batches(step, options.batch_size, tokenizer)
        tokens = sum(int((labels >= 0).sum()) for _, labels in batches)
        optimizer.zero_grad()
        for batch in batches:
            loss = loss_sum(model, batch) / tokens
            loss.backward()
            running += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} loss {running / 100:.4f} {time.monotonic() - started:.0f} s", flush=True)
            running = 0.0
        if options.checkpoint and (step + 1) % 100 == 0:
            torch.save((step + 1, model.state_dict(), optimizer.state_dict()), options.checkpoint)
        if (step + 1) % 500 == 0 or step + 1 == options.steps:
            print(json.dumps(report(model, tokenizer)), flush=True)
            model.save_pretrained(options.out)
            tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    train(arguments())
