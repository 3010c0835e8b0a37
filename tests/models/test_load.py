from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from fedft.config.schema import ModelSection, TaskSection
from fedft.errors import FedftError
from fedft.models.digest import weights_digest
from fedft.models.load import BaseModel, load_base, load_count
from fedft.models.sources import resolve_source

CAUSAL = TaskSection()
CLASSES = TaskSection(kind="sequence-classification", labels=("no", "yes"), pooling="model")
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def save(model: Any, folder: Path, **tokens: Any) -> str:
    tokenizer = AutoTokenizer.from_pretrained(resolve_source("demo"), **tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def config(base: BaseModel) -> PretrainedConfig:
    assert isinstance(base.model, PreTrainedModel)
    return base.model.config


@pytest.fixture
def llama(tmp_path: Path) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return save(
            LlamaForCausalLM(LlamaConfig(vocab_size=100, pad_token_id=0, **SIZES)), tmp_path / "llama"
        )


@pytest.fixture
def bert(tmp_path: Path) -> str:
    """A checkpoint whose head is for three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return save(
            BertForSequenceClassification(BertConfig(vocab_size=100, num_labels=3, **SIZES)),
            tmp_path / "bert",
        )


def test_a_loaded_base_is_frozen_and_counted(llama: str) -> None:
    before = load_count()
    base = load_base(ModelSection(source=llama), CAUSAL, 1)
    assert load_count() == before + 1
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.head == ()
    assert next(base.model.parameters()).dtype == torch.float32
    assert next(
        load_base(ModelSection(source=llama, dtype="bfloat16"), CAUSAL, 1).model.parameters()
    ).dtype == (torch.bfloat16)


def test_loading_leaves_the_global_random_states(bert: str) -> None:
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    load_base(ModelSection(source=bert), CLASSES, 1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), repr(np.random.get_state()))


def test_a_new_head_comes_from_the_seed_and_is_not_in_the_digest(bert: str) -> None:
    bases = [load_base(ModelSection(source=bert), CLASSES, seed) for seed in (1, 1, 2)]
    heads = [base.model.get_parameter("classifier.weight") for base in bases]
    assert bases[0].head == ("classifier.weight", "classifier.bias")
    assert heads[0].shape == (2, 16)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert 0 < heads[0].std() < 0.05
    assert not bases[0].model.get_parameter("classifier.bias").any()
    assert len({base.digest for base in bases}) == 1
    assert config(bases[0]).id2label == {0: "no", 1: "yes"}


def test_a_head_that_fits_is_kept(bert: str) -> None:
    three = TaskSection(kind="sequence-classification", labels=("a", "b", "c"))
    base = load_base(ModelSection(source=bert), three, 1)
    stored = load_file(Path(bert) / "model.safetensors")["classifier.weight"]
    assert torch.equal(base.model.get_parameter("classifier.weight"), stored)


def test_the_digest_follows_every_bit_name_shape_and_dtype(llama: str) -> None:
    base = load_base(ModelSection(source=llama), CAUSAL, 1)
    assert base.digest == load_base(ModelSection(source=llama), CAUSAL, 2).digest
    weight = base.model.get_parameter("model.layers.0.mlp.up_proj.weight")
    bits = weight.data.view(torch.int32)
    bits[3, 5] ^= 1
    changed = weights_digest(base.model)
    assert changed != base.digest
    bits[3, 5] ^= 1
    assert weights_digest(base.model) == base.digest
    weight.data = weight.data.reshape(12, 32)
    assert weights_digest(base.model) != base.digest
    assert weights_digest(base.model.bfloat16()) != base.digest


def test_a_digest_by_hand() -> None:
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.copy_(torch.tensor([0.5]))
    expected = hashlib.sha256(
        b"fedft base 1"
        + b"\nbias torch.float32 1 "
        + np.array([0.5], "<f4").tobytes()
        + b"\nweight torch.float32 1,2 "
        + np.array([1, 2], "<f4").tobytes()
    ).hexdigest()
    assert weights_digest(layer) == expected


def test_a_checkpoint_without_some_base_weight_is_refused(llama: str) -> None:
    file = Path(llama) / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(FedftError, match=r"FEDFT-2003 .*q_proj"):
        load_base(ModelSection(source=llama), CAUSAL, 1)


def test_a_checkpoint_with_another_shape_is_refused(bert: str) -> None:
    file = Path(bert) / "model.safetensors"
    weights = load_file(file)
    name = "bert.encoder.layer.0.output.dense.weight"
    weights[name] = weights[name][:, :8].clone()
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(FedftError, match="FEDFT-2003"):
        load_base(ModelSection(source=bert), CLASSES, 1)


def test_a_missing_padding_token_becomes_the_end_token(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(vocab_size=100, **SIZES))
    base = load_base(ModelSection(source=save(model, tmp_path / "m", pad_token=None)), CAUSAL, 1)
    assert base.tokenizer.pad_token == "<eos>"
    assert config(base).pad_token_id == base.tokenizer.eos_token_id
    assert base.tokenizer.padding_side == "right"


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(vocab_size=100, **SIZES))
    source = save(model, tmp_path / "m", pad_token=None, eos_token=None)
    with pytest.raises(FedftError, match="FEDFT-2004"):
        load_base(ModelSection(source=source), CAUSAL, 1)


def test_a_chat_template_from_the_configuration(llama: str) -> None:
    base = load_base(ModelSection(source=llama, chat_template="{{ 1 }}"), CAUSAL, 1)
    assert base.tokenizer.chat_template == "{{ 1 }}"


@pytest.mark.parametrize(
    "source",
    ["./none", "/none", "a/b/c", "package:no_such_package/model", "package:fedft/config", "package:x/y z"],
)
def test_what_is_not_there(source: str) -> None:
    with pytest.raises(FedftError, match="FEDFT-2001"):
        resolve_source(source)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FedftError, match=r"FEDFT-2001 .* no config\.json"):
        resolve_source(str(tmp_path))


def test_the_hub_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FedftError, match=r"FEDFT-2002 cannot load the model nobody/nothing.*without network"):
        load_base(ModelSection(source="nobody/nothing"), CAUSAL, 1)


def test_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boxed_model" / "inner").mkdir(parents=True)
    (tmp_path / "boxed_model" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "boxed_model" / "inner" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_source("package:boxed_model/inner") == str(tmp_path / "boxed_model" / "inner")
    assert "boxed_model" not in sys.modules


def test_minilm_is_the_published_encoder(minilm: str) -> None:
    file = Path(resolve_source(minilm)) / "model.safetensors"
    published = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == published
    base = load_base(ModelSection(source=minilm), CLASSES, 1)
    assert base.head == ("classifier.weight", "classifier.bias")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused(llama: str) -> None:
    with pytest.raises(FedftError, match=r"FEDFT-2006.*no CUDA device"):
        load_base(ModelSection(source=llama, device="cuda"), CAUSAL, 1)
