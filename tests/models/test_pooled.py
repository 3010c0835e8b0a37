from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from fedft.adapters.targets import resolve_targets
from fedft.config.schema import ModelSection, TaskSection
from fedft.models.load import load_base
from fedft.models.pooled import PooledClassifier, PooledHead
from fedft.models.pooling import first_pool, last_pool, mean_pool
from fedft.models.sources import resolve_source

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}


def save(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_source("demo")).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def bert(tmp_path: Path) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return save(BertModel(BertConfig(**SIZES)), tmp_path / "bert")


def task(**settings: Any) -> TaskSection:
    return TaskSection(kind="sequence-classification", labels=("a", "b", "c"), **settings)


def load(source: str, **settings: Any) -> PooledClassifier:
    model = load_base(ModelSection(source=source), task(**settings), 1).model
    assert isinstance(model, PooledClassifier)
    return model


IDS = torch.tensor([[5, 6, 7, 8], [9, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def test_each_pooling_by_hand() -> None:
    hidden = torch.arange(2 * 4 * 3, dtype=torch.float32).view(2, 4, 3)
    mean = torch.stack([hidden[0].mean(0), hidden[1, :2].mean(0)])
    torch.testing.assert_close(mean_pool(hidden, MASK), mean)
    torch.testing.assert_close(first_pool(hidden, MASK), hidden[:, 0])
    torch.testing.assert_close(last_pool(hidden, MASK), torch.stack([hidden[0, 3], hidden[1, 1]]))


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_does_not_count(bert: str, pooling: str) -> None:
    model = load(bert, pooling=pooling)
    alone = model.pooled(IDS[1:, :2], MASK[1:, :2])
    torch.testing.assert_close(model.pooled(IDS, MASK)[1:], alone, atol=1e-5, rtol=1e-4)


def test_features_are_the_upper_layers_means_as_transformers_gives_them(bert: str) -> None:
    model = load(bert, pooling="mean")
    hidden = AutoModel.from_pretrained(bert).eval()(IDS, MASK, output_hidden_states=True).hidden_states
    weights = (MASK / MASK.sum(1, keepdim=True)).unsqueeze(2)
    expected = torch.stack([(state * weights).sum(1) for state in hidden[2:]], 1)
    expected = expected / expected.norm(dim=2, keepdim=True)
    torch.testing.assert_close(model.pooled(IDS, MASK), expected)
    features = model.head.features(expected)
    torch.testing.assert_close(features, expected.flatten(1) / 3**0.5)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


def test_the_head_starts_at_zero_and_takes_the_center_off() -> None:
    head = PooledHead("mean", 2, 3, 4, normalise=True)
    pooled = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    assert not head(pooled).any()
    with torch.no_grad():
        head.center.copy_(pooled[0])
    assert not head.features(pooled)[0].any()
    torch.testing.assert_close(head.features(pooled)[1:].norm(dim=1), torch.ones(4))


def test_features_that_are_not_normalised_keep_their_length() -> None:
    head = PooledHead("first", 1, 3, 2, normalise=False)
    hidden = [torch.full((1, 2, 3), 5.0)]
    torch.testing.assert_close(head.features(head.pool(hidden, torch.ones(1, 2))), torch.full((1, 3), 5.0))


def test_adapters_find_the_body_where_it_was(bert: str) -> None:
    model = load(bert)
    own = load_base(ModelSection(source=bert), task(pooling="model"), 1).model
    assert resolve_targets(model, "auto") == resolve_targets(own, "auto")


def test_a_checkpoint_without_a_pooler_will_do(tmp_path: Path) -> None:
    source = save(BertModel(BertConfig(**SIZES), add_pooling_layer=False), tmp_path / "bert")
    base = load_base(ModelSection(source=source), task(), 1)
    assert base.head == ("head.center", "head.classifier.weight", "head.classifier.bias")
    assert base.measured == ("head.center",)


def test_a_decoder_is_pooled_at_its_last_token_and_an_encoder_by_its_mean(bert: str, tmp_path: Path) -> None:
    llama = save(LlamaForCausalLM(LlamaConfig(**SIZES)), tmp_path / "llama")
    headless = save(LlamaModel(LlamaConfig(**SIZES)), tmp_path / "headless")
    for source, named in ((bert, "mean"), (llama, "last")):
        torch.testing.assert_close(
            load(source).pooled(IDS, MASK), load(source, pooling=named).pooled(IDS, MASK)
        )
    torch.testing.assert_close(
        load(headless).pooled(IDS, MASK), load(headless, pooling="last").pooled(IDS, MASK)
    )


def test_a_sentence_encoder_says_how_it_is_pooled(bert: str) -> None:
    (Path(bert) / "1_Pooling").mkdir()
    settings = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (Path(bert) / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    torch.testing.assert_close(load(bert).pooled(IDS, MASK), load(bert, pooling="first").pooled(IDS, MASK))


def test_a_trained_head_that_fits_is_kept(tmp_path: Path) -> None:
    trained = BertForSequenceClassification(BertConfig(**SIZES, num_labels=3))
    source = save(trained, tmp_path / "trained")
    assert isinstance(load_base(ModelSection(source=source), task(), 1).model, BertForSequenceClassification)
    assert load(source, pooling="mean").head.layers == 3
