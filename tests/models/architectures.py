"""Small models of the architectures that the project promises, by transformers' model_type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 128
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_DECODER = _SIZES | {"num_key_value_heads": 2}
_WIDE = _DECODER | {"head_dim": 8}
_EXPERTS = _WIDE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@dataclass(frozen=True)
class Architecture:
    """How a small model of an architecture is made."""

    config: str
    settings: dict[str, Any]
    causal: bool = True

    def model(self) -> PreTrainedModel:
        """Return the model with random weights, the same on every call."""
        settings = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | self.settings
        config = getattr(transformers, self.config)(**settings)
        auto: Any = transformers.AutoModelForCausalLM if self.causal else transformers.AutoModel
        return _seeded(lambda: auto.from_config(config))


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("LlamaConfig", _DECODER),
    "mistral": Architecture("MistralConfig", _DECODER),
    "qwen2": Architecture("Qwen2Config", _DECODER),
    "qwen3": Architecture("Qwen3Config", _WIDE),
    "gemma": Architecture("GemmaConfig", _WIDE),
    "gemma2": Architecture("Gemma2Config", _WIDE),
    "gemma3_text": Architecture("Gemma3TextConfig", _WIDE),
    "phi3": Architecture("Phi3Config", _DECODER),
    "olmo2": Architecture("Olmo2Config", _DECODER),
    "granite": Architecture("GraniteConfig", _DECODER),
    "smollm3": Architecture("SmolLM3Config", _DECODER),
    "cohere": Architecture("CohereConfig", _DECODER),
    "cohere2": Architecture("Cohere2Config", _DECODER),
    "gpt_neox": Architecture("GPTNeoXConfig", _SIZES),
    "opt": Architecture(
        "OPTConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
        },
    ),
    "falcon": Architecture(
        "FalconConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    ),
    "gpt2": Architecture(
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "mixtral": Architecture("MixtralConfig", _DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": Architecture("Qwen2MoeConfig", _EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen3_moe": Architecture("Qwen3MoeConfig", _EXPERTS),
    "gpt_oss": Architecture("GptOssConfig", _WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "bert": Architecture("BertConfig", _SIZES, causal=False),
    "roberta": Architecture("RobertaConfig", _SIZES, causal=False),
    "xlm-roberta": Architecture("XLMRobertaConfig", _SIZES, causal=False),
    "mpnet": Architecture("MPNetConfig", _SIZES, causal=False),
    "deberta-v2": Architecture(
        "DebertaV2Config",
        _SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True},
        causal=False,
    ),
    "electra": Architecture("ElectraConfig", _SIZES | {"embedding_size": 16}, causal=False),
    "modernbert": Architecture("ModernBertConfig", _SIZES, causal=False),
    "distilbert": Architecture(
        "DistilBertConfig",
        {
            "vocab_size": VOCABULARY,
            "dim": 32,
            "hidden_dim": 48,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 64,
        },
        causal=False,
    ),
}


def _seeded(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = make()
        for parameter in model.parameters():  # biases and norms start constant, which would hide mistakes
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()
