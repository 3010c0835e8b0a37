"""From hidden states to one vector: which tokens count for a classification head, by the model's kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Pooling = Callable[[Tensor, Tensor], Tensor]
"""Maps (batch, tokens, d) hidden states and a (batch, tokens) mask to (batch, d) float32."""


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens that are not padding."""
    weights = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("btd,bt->bd", hidden.float(), weights)


def first_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the first token's state."""
    return hidden[:, 0].float()


def last_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the state of the last token that is not padding; padding is on the right."""
    last = (mask.sum(1) - 1).clamp(min=0)
    return hidden[torch.arange(len(hidden), device=hidden.device), last].float()


POOLINGS: dict[str, Pooling] = {"mean": mean_pool, "first": first_pool, "last": last_pool}

_SENTENCE_TRANSFORMERS = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}


def pooling_of(place: str, revision: str, config: Any) -> str:
    """Return how a model of this kind is pooled.

    A sentence encoder says so itself (``1_Pooling/config.json``). Of any other encoder, which is what has a
    masked language model in transformers, the mean is taken; of a decoder the last token, which alone has
    seen the whole text.

    Args:
        place: a folder or a hub id.
        revision: of the hub; empty for the newest.
        config: transformers' configuration of the model.

    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return _said_by_sentence_encoder(place, revision) or ("mean" if encoder else "last")


def _said_by_sentence_encoder(place: str, revision: str) -> str:
    from transformers.utils import cached_file

    file = cached_file(
        place, "1_Pooling/config.json", revision=revision or None, _raise_exceptions_for_missing_entries=False
    )
    if file is None:
        return ""
    modes = json.loads(Path(file).read_text())
    return next((name for key, name in _SENTENCE_TRANSFORMERS.items() if modes.get(key)), "")
