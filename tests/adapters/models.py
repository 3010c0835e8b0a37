"""Tiny models with random weights, the same on every call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    RobertaConfig,
)

VOCABULARY = 64
Make = Callable[[], PreTrainedModel]


def tiny_llama(**changes: object) -> PreTrainedModel:
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, pad_token_id=0, **changes,
    )  # fmt: skip
    return _seeded(lambda: AutoModelForCausalLM.from_config(config))


def tiny_gpt2() -> PreTrainedModel:
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=32, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0
    )
    return _seeded(lambda: AutoModelForCausalLM.from_config(config))


def tiny_bert() -> PreTrainedModel:
    return _seeded(lambda: AutoModelForSequenceClassification.from_config(BertConfig(**_ENCODER)))


def tiny_roberta() -> PreTrainedModel:
    return _seeded(lambda: AutoModelForSequenceClassification.from_config(RobertaConfig(**_ENCODER)))


_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "num_labels": 3,
}


def _seeded(make: Make) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = make()
        for parameter in model.parameters():  # biases and norms start constant, which would hide mistakes
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def tokens(batch: int = 3, length: int = 7, seed: int = 0) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def per_sample_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Next-token loss of a causal model, or of class 1 for a classifier; one value for each sample."""
    logits = model(input_ids=batch).logits
    if logits.dim() == 2:
        return nn.functional.cross_entropy(logits, torch.ones(len(batch), dtype=torch.long), reduction="none")
    loss = nn.functional.cross_entropy(logits[:, :-1].mT, batch[:, 1:], reduction="none")
    return loss.mean(1)
