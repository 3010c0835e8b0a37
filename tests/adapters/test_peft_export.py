from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from fedft.adapters import AdapterHandle, FrameSet, attach, build_frames, export_peft
from fedft.errors import FedftError
from tests.adapters.models import Make, tiny_bert, tiny_gpt2, tiny_llama, tiny_roberta, tokens
from tests.adapters.test_attach import CLASSIFIERS, frames_for, random_state

MODELS = [tiny_llama, tiny_gpt2, tiny_bert, tiny_roberta]


def trained(make: Make, initialiser: str = "random") -> tuple[AdapterHandle, Tensor]:
    model = make()
    head = ["classifier"] if make in CLASSIFIERS else []
    handle = attach(model, frames_for(model, initialiser, scale=0.5), extra_trainable=head)
    handle.load(random_state(handle))
    return handle, model(input_ids=tokens()).logits.detach()


def task(make: Make) -> str:
    return "SEQ_CLS" if make in CLASSIFIERS else "CAUSAL_LM"


def peft_logits(model: nn.Module, folder: Path) -> Tensor:
    loaded = PeftModel.from_pretrained(model, folder).eval()
    logits: Tensor = loaded(input_ids=tokens()).logits
    return logits.detach()


@pytest.mark.filterwarnings("error:.*missing adapter keys.*")
@pytest.mark.parametrize("initialiser", ["random", "lora-sb", "lora-xs", "pissa"])
@pytest.mark.parametrize("make", MODELS)
def test_peft_loads_the_export_and_its_logits_agree(make: Make, initialiser: str, tmp_path: Path) -> None:
    handle, expected = trained(make, initialiser)
    export_peft(handle, tmp_path, base_model="base", task_type=task(make))
    base = make()
    assert (base(input_ids=tokens()).logits - expected).abs().max() > 1e-2  # the adapter does something
    assert (peft_logits(base, tmp_path) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("make", MODELS)
def test_pefts_own_merge_of_the_export_agrees(make: Make, tmp_path: Path) -> None:
    handle, expected = trained(make, "lora-sb")
    export_peft(handle, tmp_path, base_model="base", task_type=task(make))
    merged = PeftModel.from_pretrained(make(), tmp_path).merge_and_unload().eval()
    assert (merged(input_ids=tokens()).logits - expected).abs().max() <= 1e-5


def test_peft_finds_the_base_model_by_itself(tmp_path: Path) -> None:
    handle, expected = trained(tiny_llama, "lora-sb")
    tiny_llama().save_pretrained(tmp_path / "base")
    export_peft(handle, tmp_path / "adapter", base_model=str(tmp_path / "base"), task_type="CAUSAL_LM")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert (loaded(input_ids=tokens()).logits - expected).abs().max() <= 1e-5


def test_the_residual_frame_is_exported_at_its_own_rank(tmp_path: Path) -> None:
    handle, _ = trained(tiny_llama, "pissa")
    export_peft(handle, tmp_path, base_model="base", task_type="CAUSAL_LM")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"].shape == (4, 32)


def test_an_untrained_residual_frame_is_exported_as_nothing(tmp_path: Path) -> None:
    model = tiny_llama()
    expected = model(input_ids=tokens()).logits
    export_peft(attach(model, frames_for(model, "pissa")), tmp_path, base_model="base", task_type="CAUSAL_LM")
    assert torch.equal(peft_logits(tiny_llama(), tmp_path), expected)


def test_frames_of_several_ranks_are_exported(tmp_path: Path) -> None:
    model = tiny_llama()
    small = build_frames(model, ["model.layers.0.mlp.up_proj"], initialiser="random", rank=2)
    large = build_frames(model, ["model.layers.1.self_attn.q_proj"], initialiser="random", rank=7)
    handle = attach(model, FrameSet({**small, **large}))
    handle.load(random_state(handle))
    expected = model(input_ids=tokens()).logits
    export_peft(handle, tmp_path, base_model="base", task_type="CAUSAL_LM")
    assert (peft_logits(tiny_llama(), tmp_path) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(("make", "saved"), [(tiny_bert, ["classifier"]), (tiny_roberta, ["classifier"])])
def test_the_head_is_saved_as_a_whole_module(make: Make, saved: list[str], tmp_path: Path) -> None:
    handle, _ = trained(make)
    export_peft(handle, tmp_path, base_model="base", task_type="SEQ_CLS")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["modules_to_save"] == saved
    assert config["lora_alpha"] == config["r"] == 4
    assert config["target_modules"] == list(handle.frames)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    heads = {name for name in tensors if "lora_" not in name}
    assert heads == {f"base_model.model.{name}" for name in handle.extra_names}


def test_fan_in_fan_out_is_set_for_conv1d_alone(tmp_path: Path) -> None:
    for make, expected in ((tiny_gpt2, True), (tiny_llama, False)):
        export_peft(trained(make)[0], tmp_path, base_model="base", task_type="CAUSAL_LM")
        assert json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"] is expected


def test_a_detached_handle_is_refused(tmp_path: Path) -> None:
    handle, _ = trained(tiny_llama)
    handle.detach()
    with pytest.raises(FedftError, match="FEDFT-2115"):
        export_peft(handle, tmp_path, base_model="base", task_type="CAUSAL_LM")
