"""Tiny adapted models with a trained head, and batches of unequal lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
)

from fedft.adapters import AdaptedLinear, attach, build_frames, resolve_targets
from fedft.privacy.mechanisms.per_sample import PerSampleGradients
from fedft.quant import NF4, quantise_model

Loss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
VOCABULARY, RANK, SCALE = 64, 4, 0.7
KINDS = ("bert", "gpt2", "llama", "llama-classifier")

_BERT = BertConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCABULARY,
    num_labels=3,
)  # fmt: skip
_GPT2 = GPT2Config(
    n_embd=32, n_layer=2, n_head=4, n_positions=32, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0
)


def _llama(**changes: object) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, pad_token_id=0, **changes,
    )  # fmt: skip


def plain_model(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        if kind == "bert":
            model = AutoModelForSequenceClassification.from_config(_BERT)
        elif kind == "gpt2":
            model = AutoModelForCausalLM.from_config(_GPT2)
        elif kind == "llama":
            model = AutoModelForCausalLM.from_config(_llama())
        else:
            model = AutoModelForSequenceClassification.from_config(_llama(num_labels=3))
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model


def adapted_model(kind: str, *, checkpointing: bool = False, quantised: bool = False) -> PreTrainedModel:
    """The model with random R's everywhere and its classification head, if it has one, trained."""
    model = plain_model(kind)
    if quantised:
        quantise_model(model, NF4)
    frames = build_frames(
        model, resolve_targets(model, "auto"), initialiser="random", rank=RANK, scale=SCALE, seed=1
    )
    heads = {"bert": ["classifier"], "llama-classifier": ["score"]}
    attach(model, frames, extra_trainable=heads.get(kind, []))
    generator = torch.Generator().manual_seed(2)
    for layer in adapted_layers(model):
        layer.R.data.copy_(torch.randn(layer.R.shape, generator=generator) * 0.3)
    model.eval()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        training_without_dropout(model)
    return model


def training_without_dropout(model: nn.Module) -> None:
    """Training mode, which checkpointing and Opacus want, with nothing random in it."""
    model.train()
    for module in model.modules():
        for name in ("p", "attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def adapted_layers(model: nn.Module) -> list[AdaptedLinear]:
    return [module for module in model.modules() if isinstance(module, AdaptedLinear)]


def make_batch(kind: str, samples: int = 4, *, padded: bool = True, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (samples, 9), generator=generator)
    lengths = (
        torch.tensor([9, 4, 7, 5, 8, 6, 3, 9] * samples)[:samples] if padded else torch.full((samples,), 9)
    )
    mask = (torch.arange(9) < lengths[:, None]).long()
    if kind in ("bert", "llama-classifier"):
        labels = torch.randint(0, 3, (samples,), generator=generator)
    else:
        labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def per_sample_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"]
    if labels.dim() == 1:
        return nn.functional.cross_entropy(logits, labels, reduction="none")
    wanted = labels[:, 1:]
    losses = nn.functional.cross_entropy(logits[:, :-1].mT, wanted, reduction="none", ignore_index=-100)
    return losses.sum(1) / (wanted != -100).sum(1)


def one_at_a_time(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Per-sample gradients by ordinary autograd, one sample a pass; (samples, d) in model order."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows = []
    for i in range(len(batch["labels"])):
        alone = {name: tensor[i : i + 1] for name, tensor in batch.items()}
        found = torch.autograd.grad(per_sample_loss(model, alone).sum(), parameters)
        rows.append(torch.cat([gradient.flatten() for gradient in found]))
    return torch.stack(rows)


def per_sample_rows(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """One row of gradients for each sample, by the hooks of the private step."""
    gradients = PerSampleGradients(model)
    gradients.attach()
    try:
        return gradients.backward(per_sample_loss(model, batch))
    finally:
        gradients.detach()
