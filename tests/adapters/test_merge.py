from __future__ import annotations

import pytest
import torch

from fedft.adapters import attach, merge
from fedft.errors import FedftError
from tests.adapters.models import Make, tiny_bert, tiny_gpt2, tiny_llama, tokens
from tests.adapters.test_attach import CLASSIFIERS, frames_for, random_state


@pytest.mark.parametrize("initialiser", ["random", "lora-sb", "lora-xs", "pissa"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert])
def test_the_merged_model_computes_what_the_adapted_one_did(make: Make, initialiser: str) -> None:
    model = make()
    names = set(model.state_dict())
    head = ["classifier"] if make in CLASSIFIERS else []
    handle = attach(model, frames_for(model, initialiser, scale=0.5), extra_trainable=head)
    handle.load(random_state(handle))
    expected = model(input_ids=tokens()).logits
    assert merge(handle) is model
    assert set(model.state_dict()) == names
    torch.testing.assert_close(model(input_ids=tokens()).logits, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(FedftError, match="FEDFT-2115"):
        handle.state()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_refused_before_anything_changes(dtype: torch.dtype) -> None:
    model = tiny_llama()
    model.model.layers[1].to(dtype)
    handle = attach(model, frames_for(model.float()))
    handle.detach()
    model.model.layers[1].to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    handle = attach(model, handle.frames)
    with pytest.raises(FedftError, match=f"FEDFT-2119 model.layers.1.*{dtype}"):
        merge(handle)
    handle.detach()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_merging_a_zero_r_changes_no_bit() -> None:
    model = tiny_llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merge(attach(model, frames_for(model)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
