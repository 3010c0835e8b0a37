"""``fedft client check`` on a site's model."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedft.client.daemon.preflight import _model
from fedft.client.site.config import SiteConfig
from fedft.config.load import check
from fedft.models.load import load_base
from fedft.models.quantised import save_stored


def site(source: str, **model: str) -> SiteConfig:
    return SiteConfig.model_validate(
        {
            "name": "site-a",
            "server": {"address": "localhost:1"},
            "data": {"train": "train.jsonl"},
            "model": {"source": source, **model},
        }
    )


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_both_kinds_of_folder_are_loaded_as_they_are(quant: str, tmp_path: Path) -> None:
    config = check({"model": {"quant": quant}})
    base = load_base(config.model, config.task, config.seed)
    source = "demo"
    if quant == "nf4":
        source = str(tmp_path / "nf4")
        save_stored(base.model, base.tokenizer, Path(source), base.head)

    assert base.digest[:16] in _model(site(source))


def test_a_site_keeps_the_runs_storage_and_chooses_its_own_files_and_device() -> None:
    run = check({"model": {"quant": "nf4", "dtype": "bfloat16"}})

    localised = site("/models/base", device="cuda").localise(run)

    assert (localised.model.source, localised.model.device) == ("/models/base", "cuda")
    assert (localised.model.quant, localised.model.dtype) == ("nf4", "bfloat16")
