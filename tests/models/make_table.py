"""Writes docs/models.md: ``python -m tests.models.make_table``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from fedft.errors import FedftError
from tests.models.architectures import ARCHITECTURES
from tests.models.trial import Trial

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = """# Models

Made by `python -m tests.models.make_table`, which builds each architecture small with random weights,
saves it, loads it as a run does, adapts it, trains, and opens the export with PEFT. The tests do the same.

By default every linear layer in a model's repeated blocks is adapted, whatever the architecture calls it:
attention and MLP, not embeddings, poolers or heads, and in a model of several modalities only the language
model. `adapter.targets` names others. An architecture that is not listed is treated by the same rule.

- **Layers**: adapted by default, in one block.
- **NF4**: how much of the parameters in the blocks is stored in 4 bits. Experts of a mixture are one
  tensor of three dimensions, which stays as it is: such a model remains mostly unquantised.
- **Example-level privacy**: whether per-sample gradients exist. A model that calls a layer with rows that are
  not the batch's samples is refused with the code; leave that layer out of `adapter.targets`.
- **PEFT**: largest difference between the outputs of the adapted model and of PEFT on the exported adapter.

| `model_type` | task | layers | NF4 | example-level privacy | PEFT |
|---|---|---|---|---|---|
"""


def row(name: str, folder: Path) -> str:
    """Try one architecture and say what was seen."""
    trial = Trial(name, folder)
    handle = trial.adapted("none")
    layers = len(handle.frames) / 2
    share = trial.quantised_share(trial.adapted("nf4"))
    try:
        rows, total = trial.sample_gradients()
        torch.testing.assert_close(rows.sum(0), total, rtol=1e-4, atol=1e-6)
        private = "yes"
    except FedftError as error:
        private = error.code
    ours, theirs = trial.exported()
    difference = float((ours - theirs).abs().max())
    task = "causal-lm" if trial.architecture.causal else "sequence-classification"
    return f"| `{name}` | {task} | {layers:g} | {share:.0%} | {private} | {difference:.0e} |"


def rows() -> Iterator[str]:
    """Try every architecture."""
    for name in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            yield row(name, Path(folder))


if __name__ == "__main__":
    PAGE.write_text(HEAD + "\n".join(rows()) + "\n")
