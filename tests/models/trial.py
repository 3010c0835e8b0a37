"""What is tried on a small model of an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedft.adapters import AdapterHandle, attach, build_frames, export_peft, resolve_targets
from fedft.config.schema import ModelSection, TaskSection
from fedft.models.load import BaseModel, load_base
from fedft.models.sources import resolve_source
from fedft.privacy.mechanisms.per_sample import PerSampleGradients
from fedft.quant.linear import QuantisedLinear
from tests.models.architectures import ARCHITECTURES, VOCABULARY

RANK = 4


class Trial:
    """A small model in a folder, and what the product does with it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.architecture, self._folder = ARCHITECTURES[name], folder
        self.source = folder / "model"
        self.architecture.model().save_pretrained(self.source)
        AutoTokenizer.from_pretrained(resolve_source("demo")).save_pretrained(self.source)
        self.tokens = torch.randint(3, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(5))

    def base(self, quant: str) -> BaseModel:
        """Load the model as a run does."""
        classes = TaskSection(kind="sequence-classification", labels=("no", "yes"), pooling="mean")
        task = TaskSection() if self.architecture.causal else classes
        return load_base(ModelSection(source=str(self.source), quant=quant), task, 1)

    def adapted(self, quant: str) -> AdapterHandle:
        """Load the model and put trained square matrices on its default targets."""
        base = self.base(quant)
        if not self.architecture.causal:  # a head at zero hands no gradient on
            nn.init.normal_(base.model.get_parameter("head.classifier.weight"), generator=_generator())
        targets = resolve_targets(base.model, "auto")
        handle = attach(
            base.model, build_frames(base.model, targets, rank=RANK, initialiser="random", seed=3)
        )
        handle.load(
            {name: torch.randn(v.shape, generator=_generator()) for name, v in handle.state().items()}
        )
        return handle

    def logits(self, handle: AdapterHandle) -> Tensor:
        """Return the model's outputs for the samples."""
        with torch.no_grad():
            return _logits(handle.model, self.tokens)

    def losses(self, handle: AdapterHandle) -> Tensor:
        """Return one loss for each sample."""
        logits = _logits(handle.model, self.tokens)
        if not self.architecture.causal:
            return logits.logsumexp(-1) - logits[:, 1]
        loss = nn.functional.cross_entropy(logits[:, :-1].mT, self.tokens[:, 1:], reduction="none")
        return loss.mean(1)

    def sample_gradients(self) -> tuple[Tensor, Tensor]:
        """Return the gradients of single samples, (3, d), and that of their sum, (d,)."""
        handle = self.adapted("none")
        collector = PerSampleGradients(handle.model)
        self.losses(handle).sum().backward()
        parameters = [p for p in handle.model.parameters() if p.requires_grad]
        total = torch.cat([p.grad.flatten() for p in collector.parameters.values() if p.grad is not None])
        for parameter in parameters:
            parameter.grad = None
        collector.attach()
        rows = collector.backward(self.losses(handle))
        collector.detach()
        return rows, total

    def exported(self) -> tuple[Tensor, Tensor]:
        """Return the adapted model's outputs, and those of the base with the exported adapter by PEFT."""
        handle, out = self.adapted("none"), self._folder / "adapter"
        body = "" if self.architecture.causal else str(handle.model.base_model_prefix)
        kind = "CAUSAL_LM" if self.architecture.causal else "FEATURE_EXTRACTION"
        export_peft(handle, out, base_model=str(self.source), task_type=kind, body=body)
        if self.architecture.causal:
            plain: Any = AutoModelForCausalLM.from_pretrained(self.source)
            loaded = PeftModel.from_pretrained(plain, str(out)).eval()
            with torch.no_grad():
                return self.logits(handle), _logits(loaded, self.tokens)
        with torch.no_grad():
            adapted: Any = handle.model
            ours = adapted.body(input_ids=self.tokens).last_hidden_state
            plain = self.architecture.model()
            loaded = PeftModel.from_pretrained(plain, str(out)).eval()
            return ours, loaded(input_ids=self.tokens).last_hidden_state

    def quantised_share(self, handle: AdapterHandle) -> float:
        """Return which part of the parameters in the model's blocks is stored in few bits."""
        stored = [m for m in handle.model.modules() if isinstance(m, QuantisedLinear)]
        few = sum(module.in_features * module.out_features for module in stored)
        parameters = self.architecture.model().named_parameters()
        inside = (p for name, p in parameters if any(part.isdigit() for part in name.split(".")))
        return float(few / sum(p.numel() for p in inside))


def _logits(model: Any, tokens: Tensor) -> Tensor:
    result: Tensor = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return result


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)
