"""A classifier on pooled hidden states, in place of the head that transformers gives a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput

from fedft.models.pooling import POOLINGS

_SETTINGS, _TENSORS = "head.json", "head.safetensors"

HEAD = "head"
CENTER = f"{HEAD}.center"
"""The mean of the pooled features over the sites' records: measured, not trained."""


class PooledHead(nn.Module):
    """A linear classifier that starts at zero, on pooled states of the upper layers side by side.

    With features normalised each layer's pooled state is brought to unit length, the center is taken off, and
    what is left is brought to length 1/√k, so that a sample's features have length 1 whatever the model. The
    mean of sentence features is most of their length and tells the classes nothing; without it a
    linear classifier learns in a fraction of the steps.

    Args:
        pooling: a name in ``POOLINGS``.
        layers: k, how many of the last hidden states are pooled.
        width: d of one hidden state.
        classes: number of classes.
        normalise: whether features are brought to unit length.

    Attributes:
        layers: k.
        center: (k, d) float32, zero until it is measured.
        classifier: from k·d features to the logits.

    """

    def __init__(self, pooling: str, layers: int, width: int, classes: int, *, normalise: bool) -> None:
        super().__init__()
        self._settings = {"pooling": pooling, "layers": layers, "normalise": normalise}
        self._pool, self._normalise = POOLINGS[pooling], normalise
        self.layers = layers
        self.center = nn.Parameter(torch.zeros(layers, width))
        self.classifier = nn.Linear(layers * width, classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def pool(self, hidden: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Return (batch, k, d) float32 of the last k hidden states, each of unit length if normalised."""
        pooled = torch.stack([self._pool(state, mask) for state in hidden[-self.layers :]], dim=1)
        return F.normalize(pooled, dim=2) if self._normalise else pooled

    def features(self, pooled: Tensor) -> Tensor:
        """Return (batch, k·d) features of (batch, k, d) pooled states; of length 1 if normalised."""
        centered = pooled - self.center
        if self._normalise:
            centered = F.normalize(centered, dim=2) / self.layers**0.5
        return centered.flatten(1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return (batch, classes) float32 logits of (batch, k, d) pooled states."""
        logits: Tensor = self.classifier(self.features(pooled))
        return logits

    def save(self, folder: Path, labels: Sequence[str]) -> None:
        """Write ``head.json`` and ``head.safetensors``, which ``load_head`` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {**self._settings, "labels": list(labels)}
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
        tensors = {
            name: tensor.detach().float().cpu().contiguous() for name, tensor in self.state_dict().items()
        }
        save_file(tensors, folder / _TENSORS, metadata={"format": "pt"})


def load_head(folder: Path) -> tuple[PooledHead, list[str]]:
    """Return the head that ``PooledHead.save`` wrote, and the class names.

    With the body, whose hidden states it takes: ``head(head.pool(hidden_states, attention_mask))``.
    """
    settings, tensors = json.loads((folder / _SETTINGS).read_text()), load_file(folder / _TENSORS)
    labels = settings.pop("labels")
    head = PooledHead(width=tensors["center"].shape[1], classes=len(labels), **settings)
    head.load_state_dict(tensors)
    return head.requires_grad_(False), labels


class PooledClassifier(nn.Module):
    """A transformers body with a ``PooledHead``; called like a model for sequence classification.

    The body keeps its place: adapters find ``bert.encoder…`` where they find it in transformers' own class.

    Args:
        body: without a head.
        prefix: the name under which the body is kept.
        head: what its hidden states go to.

    """

    def __init__(self, body: Any, prefix: str, head: PooledHead) -> None:
        super().__init__()
        self.config, self.base_model_prefix = body.config, prefix
        if getattr(body, "pooler", None) is not None:
            body.pooler = None  # the head of another task; nothing reads it here
        self.add_module(prefix, body)
        self.head = head

    @property
    def body(self) -> Any:
        """The transformers model without a head."""
        return getattr(self, self.base_model_prefix)

    def get_input_embeddings(self) -> nn.Module:
        """Return the body's token embeddings."""
        embeddings: nn.Module = self.body.get_input_embeddings()
        return embeddings

    def pooled(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Return (batch, k, d) pooled hidden states."""
        output = self.body(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **inputs
        )
        return self.head.pool(output.hidden_states, attention_mask)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor
    ) -> SequenceClassifierOutput:
        """Return the logits, as transformers' classes do."""
        return SequenceClassifierOutput(logits=self.head(self.pooled(input_ids, attention_mask, **inputs)))


def with_pooled_head(
    model: Any, *, pooling: str, layers: int, classes: int, normalise: bool
) -> PooledClassifier:
    """Return the body of a sequence classification model with a pooled head in place of its own.

    Args:
        model: transformers' model with a head.
        pooling: a name in ``POOLINGS``.
        layers: how many of the last hidden states; 0: those of the upper half.
        classes: number of classes.
        normalise: see ``PooledHead``.

    """
    prefix, config = model.base_model_prefix, model.config
    depth = config.num_hidden_layers + 1
    pooled = min(layers or depth - config.num_hidden_layers // 2, depth)
    head = PooledHead(pooling, pooled, config.hidden_size, classes, normalise=normalise)
    return PooledClassifier(getattr(model, prefix), prefix, head)
