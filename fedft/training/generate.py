"""Greedy decoding in batches, with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedft.training.task import device_of, pad


@torch.no_grad()
def greedy(
    model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int, stops: Sequence[int]
) -> list[list[int]]:
    """The most likely continuation of every prompt, token by token.

    The model's own generation settings play no part, so the answer depends on the weights alone.

    Args:
        model: a causal LM that takes ``attention_mask``, ``position_ids`` and ``past_key_values``.
        prompts: token ids, none empty.
        max_new_tokens: the longest continuation.
        stops: token ids that end a continuation; they are not part of it.

    """
    device = device_of(model)
    ids = pad(prompts, 0, left=True).to(device)
    mask = pad([[1] * len(prompt) for prompt in prompts], 0, left=True).to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    ends = torch.tensor(list(stops), device=device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    written: list[torch.Tensor] = []
    cache: Any = None
    for _ in range(max_new_tokens):
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        token = output.logits[:, -1].argmax(-1)
        done = done | torch.isin(token, ends)
        if bool(done.all()):
            break
        written.append(token.masked_fill(done, -1))
        cache, ids, positions = output.past_key_values, token[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in prompts]
    return [[token for token in row if token >= 0] for row in rows]
