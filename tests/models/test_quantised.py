"""Base models in NF4: from dense files, from NF4 files, and what a run does with them."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaModel,
)

from fedft.config.schema import ModelSection, TaskSection
from fedft.errors import FedftError
from fedft.models import quantised
from fedft.models.load import BaseModel, load_base
from fedft.models.quantised import save_stored
from fedft.models.sources import resolve_source
from fedft.quant import NF4, NF4Weight, QuantisedLinear, loading, quantise_model

CAUSAL = TaskSection()
CLASSES = TaskSection(kind="sequence-classification", labels=("no", "yes", "maybe", "never"), pooling="model")
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "pad_token_id": 0,
}
DISTIL: dict[str, Any] = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2, "vocab_size": 100}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100}

# What is in the files, and the task that it is loaded for.
CHECKPOINTS: dict[str, tuple[Any, TaskSection]] = {
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)), CAUSAL),
    "llama, tied": (lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)), CAUSAL),
    "llama, new head": (lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)), CLASSES),
    "llama, own head": (lambda: LlamaForSequenceClassification(LlamaConfig(**LLAMA, num_labels=4)), CLASSES),
    "qwen2, biases": (lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA, num_key_value_heads=1)), CAUSAL),
    "gpt2, transposed": (lambda: GPT2LMHeadModel(GPT2Config(**GPT2)), CAUSAL),
    "bert, body alone": (lambda: BertModel(BertConfig(**LLAMA)), CLASSES),
    "bert, other head": (
        lambda: BertForSequenceClassification(BertConfig(**LLAMA, num_labels=2)),
        CLASSES,
    ),
    "roberta, body alone": (lambda: RobertaModel(RobertaConfig(**LLAMA)), CLASSES),
    "distilbert": (
        lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTIL, num_labels=4)),
        CLASSES,
    ),
}


def checkpoint(name: str, folder: Path, dtype: torch.dtype = torch.float32, shard: str = "1GB") -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CHECKPOINTS[name][0]().to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))  # biases and norms too
    model.save_pretrained(folder, max_shard_size=shard)
    AutoTokenizer.from_pretrained(resolve_source("demo")).save_pretrained(folder)
    return str(folder)


def load(source: str | Path, task: TaskSection, **settings: Any) -> BaseModel:
    return load_base(ModelSection(source=str(source), quant="nf4", **settings), task, 1)


def state(model: nn.Module) -> dict[str, Tensor]:
    return dict(sorted(model.state_dict().items()))


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = state(a), state(b)
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_same_bits_as_loading_all_of_it_and_quantising(name: str, dtype: str, tmp_path: Path) -> None:
    source, task = checkpoint(name, tmp_path / "model", shard="40KB"), CHECKPOINTS[name][1]
    dense = load_base(ModelSection(source=source, dtype=dtype), task, 1)
    quantise_model(dense.model, NF4)

    base = load(source, task, dtype=dtype)

    assert same(base.model, dense.model)
    assert base.head == dense.head
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    ids = torch.arange(3, 27).view(2, 12)
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, dense.model(ids).logits)


@pytest.mark.parametrize("name", ["llama, tied", "llama, new head", "bert, body alone", "gpt2, transposed"])
def test_nf4_files_load_as_the_same_base(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, task = checkpoint(name, tmp_path / "model", torch.bfloat16), CHECKPOINTS[name][1]
    base = load(source, task)
    save_stored(base.model, base.tokenizer, tmp_path / "nf4", base.head)
    monkeypatch.setattr(NF4Weight, "quantise", None)  # nothing is quantised again

    stored = load(tmp_path / "nf4", task)

    assert stored.digest == base.digest
    assert same(stored.model, base.model)


def test_the_digest_covers_the_quantised_bytes(tmp_path: Path) -> None:
    source = checkpoint("llama", tmp_path / "model")
    base = load(source, CAUSAL)
    save_stored(base.model, base.tokenizer, tmp_path / "nf4", base.head)
    path = tmp_path / "nf4" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][7] ^= 1
    save_file(tensors, path)

    assert load(tmp_path / "nf4", CAUSAL).digest != base.digest
    assert load_base(ModelSection(source=source), CAUSAL, 1).digest != base.digest


def test_one_dense_weight_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoint("llama", tmp_path / "model")
    read, alive, most = loading._tensor, [], []

    def watched(path: Path, key: str) -> Tensor:
        tensor = read(path, key)
        if "proj" in key:
            alive.append(weakref.ref(tensor))
            most.append(sum(each() is not None for each in alive))
        return tensor

    monkeypatch.setattr(loading, "_tensor", watched)
    base = load(source, CAUSAL)

    assert sum(isinstance(module, QuantisedLinear) for module in base.model.modules()) == len(most) == 14
    # The one before may still be referenced while the next is read.
    assert max(most) <= 2
    assert not [each for each in alive if each() is not None]


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    source = checkpoint("llama", tmp_path / "model")
    path = Path(source) / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})

    with pytest.raises(FedftError, match=r"FEDFT-2003.*model\.layers\.1\.self_attn\.q_proj\.weight"):
        load(source, CAUSAL)

    tensors["model.layers.1.self_attn.q_proj.weight"] = torch.zeros(8, 8)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(FedftError, match=r"FEDFT-9012.*q_proj"):
        load(source, CAUSAL)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    source = checkpoint("llama", tmp_path / "model")
    (Path(source) / "model.safetensors").rename(Path(source) / "pytorch_model.bin")

    with pytest.raises(FedftError, match=r"FEDFT-2009.*safetensors"):
        load(source, CAUSAL)


def test_nf4_files_are_not_loaded_as_dense_ones(tmp_path: Path) -> None:
    base = load(checkpoint("llama", tmp_path / "model"), CAUSAL)
    save_stored(base.model, base.tokenizer, tmp_path / "nf4", base.head)

    with pytest.raises(FedftError, match="FEDFT-2005"):
        load_base(ModelSection(source=str(tmp_path / "nf4")), CAUSAL, 1)
    with pytest.raises(FedftError, match=r"FEDFT-2005 .*'int8'"):
        load_base(ModelSection(source=str(tmp_path / "nf4"), quant="int8"), CAUSAL, 1)
    with pytest.raises(FedftError, match="FEDFT-6008"):
        save_stored(base.model, base.tokenizer, tmp_path / "nf4", base.head)


def test_the_head_is_drawn_and_not_kept_in_files(tmp_path: Path) -> None:
    source = checkpoint("bert, body alone", tmp_path / "model")
    base = load(source, CLASSES)
    save_stored(base.model, base.tokenizer, tmp_path / "nf4", base.head)

    assert base.head == ("classifier.weight", "classifier.bias")
    assert base.model.get_parameter("classifier.weight").any()
    assert not [key for key in load_file(tmp_path / "nf4" / "model.safetensors") if "classifier" in key]
    other = load_base(ModelSection(source=str(tmp_path / "nf4"), quant="nf4"), CLASSES, 2)
    assert other.digest == base.digest
    assert not torch.equal(
        other.model.get_parameter("classifier.weight"), base.model.get_parameter("classifier.weight")
    )


def test_a_hub_models_files_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("llama", tmp_path / "model")
    asked: dict[str, Any] = {}

    def fetch(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return folder

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    place = quantised._folder("owner/name", "abc")

    assert place == Path(folder)
    assert (asked["repository"], asked["revision"]) == ("owner/name", "abc")
    assert "*.safetensors" in asked["allow_patterns"]
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith(("bin", "*"))]


def test_a_hub_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(FedftError, match="FEDFT-2002"):
        load("owner/no-such-model", CAUSAL)
