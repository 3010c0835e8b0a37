"""Whole models: which layers are quantised, and what goes through files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
)

from fedft.errors import FedftError
from fedft.quant import (
    NF4,
    QuantisedLinear,
    description,
    files,
    load_quantised,
    quantisable,
    quantise_model,
    save_quantised,
)

IDS = torch.arange(24).view(2, 12)


def llama(tie: bool = False, dtype: torch.dtype = torch.bfloat16) -> Any:
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
        tie_word_embeddings=tie,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def gpt2() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=100)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def test_body_linears_are_quantised_heads_and_embeddings_are_not() -> None:
    assert len(quantisable(llama())) == 14
    assert not [name for name in quantisable(llama(tie=True)) if "lm_head" in name]
    assert quantisable(gpt2())[0] == "transformer.h.0.attn.c_attn"
    config = BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128)
    classifier = AutoModelForSequenceClassification.from_config(config)
    assert "classifier" not in quantisable(classifier)
    assert len(quantisable(classifier)) == 7


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_quantised_model_computes_about_the_same(make: Any) -> None:
    model = make()
    before = logits(model).float()
    quantise_model(model, NF4)
    after = logits(model).float()
    assert 1e-4 < (after - before).norm() / before.norm() < 0.3
    assert sum(isinstance(module, QuantisedLinear) for module in model.modules()) in (8, 14)


def test_refusals() -> None:
    model = llama()
    with pytest.raises(FedftError, match="FEDFT-9013"):
        quantise_model(model, NF4, ["model.layers.7.mlp"])
    with pytest.raises(FedftError, match="FEDFT-9013"):
        quantise_model(model, NF4, ["model.embed_tokens"])
    with pytest.raises(FedftError, match="FEDFT-9013"):
        quantise_model(torch.nn.LayerNorm(3), NF4)
    with pytest.raises(FedftError, match="FEDFT-9013"):
        save_quantised(model, Path("unused"))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(FedftError, match="FEDFT-9010"):
        quantise_model(model, NF4)


@pytest.mark.parametrize("make", [llama, lambda: llama(tie=True), gpt2], ids=["llama", "tied", "gpt2"])
@pytest.mark.parametrize("shard", [1 << 30, 20_000])
def test_files_round_trip(make: Any, shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SHARD", shard)
    model = make()
    quantise_model(model, NF4)
    assert not description(tmp_path)
    digest = save_quantised(model, tmp_path)
    assert NF4.reads(description(tmp_path))
    assert not list(tmp_path.glob(".*"))
    state = torch.get_rng_state()
    loaded, missing, again = load_quantised(tmp_path, AutoModelForCausalLM, NF4)
    assert torch.equal(torch.get_rng_state(), state)
    assert (missing, again) == ([], digest)
    assert torch.equal(logits(loaded), logits(model))
    assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), loaded.buffers(), strict=True))


def test_no_dense_weight_is_ever_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    quantise_model(model, NF4)
    save_quantised(model, tmp_path)
    monkeypatch.setattr(QuantisedLinear, "of", None)
    loaded, _, _ = load_quantised(tmp_path, AutoModelForCausalLM, NF4)
    dense = sum(
        p.nbytes for name, p in loaded.named_parameters() if "embed" not in name and "lm_head" not in name
    )
    assert dense == sum(p.nbytes for name, p in model.named_parameters() if "norm" in name)


def test_transformers_opens_the_folder_with_bitsandbytes(tmp_path: Path) -> None:
    model = llama()
    quantise_model(model, NF4)
    save_quantised(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    for module in theirs.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # otherwise an evaluation repacks the weights
    assert type(theirs.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    difference = (logits(theirs).float() - logits(model).float()).norm() / logits(model).float().norm()
    assert difference < 4e-3


def test_a_new_head_is_reported(tmp_path: Path) -> None:
    model = llama()
    quantise_model(model, NF4)
    save_quantised(model, tmp_path)
    loaded, missing, _ = load_quantised(tmp_path, AutoModelForSequenceClassification, NF4)
    assert missing == ["score.weight"]
    assert not loaded.get_parameter("score.weight").any()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    model = llama()
    quantise_model(model, NF4)
    save_quantised(model, tmp_path)
    path = tmp_path / "model.safetensors"
    good = path.read_bytes()

    path.write_bytes(good[:-100] + bytes([good[-100] ^ 1]) + good[-99:])
    with pytest.raises(FedftError, match=r"FEDFT-9012.*records"):
        load_quantised(tmp_path, AutoModelForCausalLM, NF4)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(FedftError, match="FEDFT-9012"):
        load_quantised(tmp_path, AutoModelForCausalLM, NF4)

    path.write_bytes(good)
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.weight.absmax"]
    save_file(tensors, path)
    with pytest.raises(FedftError, match="FEDFT-9011"):
        load_quantised(tmp_path, AutoModelForCausalLM, NF4)

    path.write_bytes(good)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 320}))
    with pytest.raises(FedftError, match=r"FEDFT-9012.*the model does not"):
        load_quantised(tmp_path, AutoModelForCausalLM, NF4)
    path.unlink()
    with pytest.raises(FedftError, match="FEDFT-9012"):
        load_quantised(tmp_path, AutoModelForCausalLM, NF4)
    with pytest.raises(FedftError, match="FEDFT-9012"):
        load_quantised(tmp_path / "absent", AutoModelForCausalLM, NF4)
