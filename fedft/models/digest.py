"""The identity of a base model's weights and of its tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn


def weights_digest(model: nn.Module, exclude: Collection[str] = ()) -> str:
    """SHA-256 (hex) over the names, dtypes, shapes and bytes of a model's weights, in order of names.

    Args:
        model: any module; its persistent buffers count, its place (device) does not.
        exclude: names that are left out, such as those of a new classification head.

    """
    digest = hashlib.sha256(b"fedft base 1")
    for name, tensor in sorted(model.state_dict().items()):
        if name in exclude:
            continue
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"\n{name} {tensor.dtype} {shape} ".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 (hex) over a tokenizer's rules: how text becomes tokens, special tokens, the chat template.

    How it pads and cuts is left out: the caller says so each time.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(fast.to_str()) if fast is not None else {"vocabulary": tokenizer.get_vocab()}
    facts = {
        "rules": {name: value for name, value in rules.items() if name not in ("padding", "truncation")},
        "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
        "inputs": tokenizer.model_input_names,
        "chat_template": tokenizer.chat_template,
        "kind": type(tokenizer).__name__,
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(b"fedft tokenizer 1" + text.encode()).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
