"""The example configurations: valid, and their data path works on the real data."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedft.config import load_config
from fedft.data.partition import partition
from fedft.data.readers import load_records
from fedft.models.load import load_base
from fedft.training.task import make_task

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_valid_and_starts_with_its_command(path: Path) -> None:
    load_config(path)
    assert path.read_text().splitlines()[0] == f"# fedft simulate examples/{path.name}"


@pytest.mark.data
def test_gsm8k_on_the_demo_model(data_dir: Path) -> None:
    """The example's data path with a model that is at hand: read, template, tokenise, loss, answers."""
    overrides = {
        "model.source": "demo",
        "model.dtype": "float32",
        "model.device": "cpu",
        "task.max_length": 450,
        "task.max_new_tokens": 4,
        "data.train": str(data_dir / "gsm8k" / "train.jsonl"),
        "data.test": str(data_dir / "gsm8k" / "test.jsonl"),
    }
    config = load_config(EXAMPLES / "gsm8k.toml", overrides)
    base = load_base(config.model, config.task, config.seed)
    task = make_task(config, base.tokenizer)
    records = load_records(config.data.train)
    assert sum(map(len, partition(records, config.data.partition, 1))) == 7473
    samples, report = task.prepare(records[:100])
    assert 0 < len(samples) < 100
    assert report.dropped == 100 - len(samples)
    metrics = task.evaluate(base.model, samples[:4], batch_size=4, generate=True).values()
    assert metrics["loss"] > 0
    assert metrics["exact_match"] == 0


@pytest.mark.data
def test_sst2_on_minilm(data_dir: Path, minilm: str) -> None:
    splits = {"train": "train", "test": "test", "public": "dev"}
    overrides = {f"data.{split}": str(data_dir / "sst2" / f"{file}.tsv") for split, file in splits.items()}
    config = load_config(EXAMPLES / "sst2-minilm.toml", overrides)
    assert config.model.source == minilm
    base = load_base(config.model, config.task, config.seed)
    task = make_task(config, base.tokenizer)
    records = load_records(config.data.train, columns=config.data.columns)
    samples, report = task.prepare(records)
    assert report.samples == 6920
    assert sum(sample.label for sample in samples) == 3610
    assert 0.3 < task.evaluate(base.model, samples[:64], batch_size=64).values()["accuracy"] < 0.7
