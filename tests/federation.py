"""A federation small enough to run in a second: a tiny model, generated sums, any number of clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedft.config import RunConfig, load_config
from fedft.config.load import to_json
from fedft.coordinator.coordinator import Coordinator
from fedft.store import RunRecord, RunStore
from fedft.transport.inline import InlineGrid

_CHARACTERS = "0123456789+= "


def tiny_model(folder: Path) -> Path:
    """Write a random two-layer Llama with a character tokenizer."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", "<unk>", *_CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    settings = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(settings).save_pretrained(folder)
    return folder


def sums(path: Path, count: int, offset: int = 0) -> Path:
    """Write additions as JSON lines, each with a ``kind`` of three."""
    rows = []
    for index in range(offset, offset + count):
        a, b = (7 * index) % 50, (11 * index) % 40
        rows.append({"prompt": f"{a}+{b}=", "completion": f" {a + b}", "kind": "abc"[index % 3]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny_config(folder: Path, **overrides: Any) -> RunConfig:
    """Write model and data into ``folder`` (once) and return a configuration of three short rounds."""
    if not (folder / "model").exists():
        tiny_model(folder / "model")
        sums(folder / "train.jsonl", 90)
        sums(folder / "test.jsonl", 12, 100)
        sums(folder / "public.jsonl", 8, 200)
        (folder / "run.toml").write_text(_TOML)
    return load_config(folder / "run.toml", {"store.path": str(folder / "store"), **overrides})


_TOML = """
name = "tiny"
[model]
source = "model"
[data]
train = "train.jsonl"
test = "test.jsonl"
public = "public.jsonl"
[data.partition]
clients = 3
[adapter]
rank = 4
samples = 8
[training]
steps = 2
batch_size = 4
learning_rate = 0.01
[rounds]
total = 3
[simulation]
backend = "inline"
"""


def run_inline(
    config: RunConfig,
    *,
    client_app: Callable[..., Any] | None = None,
    store: RunStore | None = None,
    run: RunRecord | None = None,
    observe: Callable[[Any], None] = lambda _event: None,
) -> tuple[RunStore, RunRecord]:
    """Run a configuration inline, with the product's own client or another one."""
    from fedft.client.app import app

    store = store or RunStore(config.store.path)
    run = run or store.create_run(config.name, to_json(config))
    grid = InlineGrid(client_app or app, config.data.partition.clients)  # type: ignore[arg-type]
    return store, Coordinator(grid, store, run, observe=observe).execute()
