"""Models are read as numbers and settings; what could run code is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedft.config.schema import ModelSection, TaskSection
from fedft.errors import FedftError
from fedft.models.load import load_base, load_tokenizer
from fedft.models.skeleton import load_skeleton
from fedft.models.sources import resolve_source

DEMO = Path(resolve_source("demo"))
TASK = TaskSection()
Load = Callable[[str], object]
LOADERS: dict[str, Load] = {
    "weights": lambda source: load_base(ModelSection(source=source), TASK, 1),
    "quantised": lambda source: load_base(ModelSection(source=source, quant="nf4"), TASK, 1),
    "tokenizer": lambda source: load_tokenizer(ModelSection(source=source)),
    "skeleton": lambda source: load_skeleton(ModelSection(source=source), TASK),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(DEMO, tmp_path / "model")


def add(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_with_code_of_its_own_is_refused_and_the_code_not_run(
    file: str, load: Load, model: Path, tmp_path: Path
) -> None:
    (model / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    add(model / file, auto_map={"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]})
    with pytest.raises(FedftError, match="FEDFT-2008"):
        load(str(model))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
def test_weights_that_are_a_pickle_are_refused(load: Load, model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    load(str(model))
    (model / "model.safetensors").unlink()
    with pytest.raises(FedftError, match="FEDFT-2009"):
        load(str(model))


def test_a_folder_without_any_weights_is_no_model(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(FedftError, match="FEDFT-2002"):
        LOADERS["weights"](str(model))


def test_the_demo_model_has_the_digests_that_are_stated() -> None:
    stated = re.search(r"`([0-9a-f]{64})`", (DEMO / "README.md").read_text("utf-8"))
    assert stated is not None
    assert hashlib.sha256((DEMO / "model.safetensors").read_bytes()).hexdigest() == stated[1]
    base = load_base(ModelSection(), TASK, 1)
    assert base.digest == "ffaecca976ec256bdc4a3c555e91491abf398e070b3375274179a97eaebd4fa8"
    assert sorted(path.suffix for path in DEMO.iterdir()) == [".json"] * 4 + [".md", ".safetensors"]
