"""Every promised architecture is loaded, adapted, trained and exported; docs/models.md says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedft.adapters import AdapterHandle
from fedft.errors import FedftError
from tests.models.architectures import ARCHITECTURES
from tests.models.trial import Trial

MIXED = {"opt", "qwen2_moe", "deberta-v2"}
"""Some layer is called with other rows than the batch's samples, so example-level privacy refuses it."""

pytestmark = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture
def trial(name: str, tmp_path: Path) -> Trial:
    return Trial(name, tmp_path)


def unmoved(handle: AdapterHandle) -> list[str]:
    parameters = handle.named_trainable_parameters().items()
    return [name for name, p in parameters if p.grad is None or not bool(p.grad.any())]


def test_every_linear_of_the_blocks_is_a_target_and_learns(trial: Trial) -> None:
    handle = trial.adapted("none")
    trial.losses(handle).sum().backward()
    assert unmoved(handle) == []


def test_rows_of_single_samples_sum_to_the_gradient(trial: Trial, name: str) -> None:
    if name in MIXED:
        with pytest.raises(FedftError, match="FEDFT-8408"):
            trial.sample_gradients()
        return
    rows, total = trial.sample_gradients()
    torch.testing.assert_close(rows.sum(0), total, rtol=1e-4, atol=1e-6)


def test_peft_opens_the_export(trial: Trial) -> None:
    ours, theirs = trial.exported()
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_it_loads_quantised_and_learns(trial: Trial) -> None:
    handle = trial.adapted("nf4")
    trial.losses(handle).sum().backward()
    assert unmoved(handle) == []
    assert trial.quantised_share(handle) > 0
    difference: Tensor = trial.logits(handle) - trial.logits(trial.adapted("none"))
    assert difference.abs().max() < 2.0
