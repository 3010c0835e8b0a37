from __future__ import annotations

import pytest
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from fedft.adapters import resolve_targets
from fedft.errors import FedftError
from tests.adapters.models import Make, tiny_bert, tiny_gpt2, tiny_llama, tiny_roberta

DECODER = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def linear_names(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")}


@pytest.mark.parametrize(
    "config", [MistralConfig, Qwen2Config, Qwen3Config, GemmaConfig, Gemma2Config, Gemma3TextConfig]
)
def test_decoders_default_to_all_attention_and_mlp_linears(config: type) -> None:
    model = AutoModelForCausalLM.from_config(
        config(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            vocab_size=32,
            pad_token_id=0,
        )
    )
    found = resolve_targets(model, "auto")
    assert len(found) == 14
    assert {name.rpartition(".")[2] for name in found} == DECODER
    assert set(found) == linear_names(model) - {"lm_head"}


@pytest.mark.parametrize(
    ("make", "left_out"),
    [
        (tiny_llama, {"lm_head"}),
        (tiny_gpt2, {"lm_head"}),
        (tiny_bert, {"bert.pooler.dense", "classifier"}),
        (tiny_roberta, {"classifier.dense", "classifier.out_proj"}),
    ],
)
def test_auto_leaves_out_heads_poolers_and_embeddings_alone(make: Make, left_out: set[str]) -> None:
    model = make()
    found = resolve_targets(model, "auto")
    assert found == sorted(linear_names(model) - left_out)


def test_distilbert() -> None:
    config = DistilBertConfig(dim=16, hidden_dim=24, n_layers=1, n_heads=2, vocab_size=32)
    model = DistilBertForSequenceClassification(config)
    found = resolve_targets(model, "auto")
    assert set(found) == linear_names(model) - {"pre_classifier", "classifier"}


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (["q_proj"], 2),
        (["self_attn.q_proj", "up_proj"], 4),
        (["model.layers.0.*"], 7),
        (["model.layers.[01].mlp.*_proj"], 6),
        (["model.layers.1.mlp.up_proj"], 1),
        (["q_proj", "model.layers.0.self_attn.q_proj"], 2),
        (["lm_head"], 1),
    ],
)
def test_patterns_name_whole_names_their_ends_or_shell_patterns(patterns: list[str], count: int) -> None:
    found = resolve_targets(tiny_llama(), patterns)
    assert len(found) == count
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    "patterns", [["nothing"], ["q_proj", "nothing"], ["proj"], ["embed_tokens"], ["mlp"], []]
)
def test_a_pattern_that_matches_nothing_is_refused(patterns: list[str]) -> None:
    with pytest.raises(FedftError, match="FEDFT-2111") as caught:
        resolve_targets(tiny_llama(), patterns)
    assert "gate_proj" in str(caught.value) or not patterns


def test_a_model_without_blocks_has_no_default() -> None:
    with pytest.raises(FedftError, match="FEDFT-2112"):
        resolve_targets(nn.ModuleDict({"projection": nn.Linear(2, 2)}), "auto")


def test_a_weight_tied_to_the_embeddings_is_refused() -> None:
    with pytest.raises(FedftError, match=r"FEDFT-2113 target lm_head shares its weight with .*embed_tokens"):
        resolve_targets(tiny_llama(tie_word_embeddings=True), ["lm_head"])
    resolve_targets(tiny_llama(tie_word_embeddings=True), "auto")


def test_a_module_used_under_two_names_is_refused() -> None:
    shared = nn.Linear(3, 3)
    with pytest.raises(FedftError, match="FEDFT-2113"):
        resolve_targets(nn.ModuleDict({"one": shared, "two": shared}), ["one"])


def test_a_weight_that_shares_memory_is_refused() -> None:
    one, two = nn.Linear(3, 4), nn.Linear(4, 3)
    two.weight = nn.Parameter(one.weight.data.T)
    with pytest.raises(FedftError, match="FEDFT-2113"):
        resolve_targets(nn.ModuleDict({"one": one, "two": two}), ["two"])
