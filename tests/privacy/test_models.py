"""Every kind of privacy has all its parts, and one that nobody handles is an error at every side."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from fedft.client.worker.local_privacy import LocalPrivacy, local_privacy
from fedft.codecs import Manifest
from fedft.coordinator.central_mechanism import central_mechanism
from fedft.errors import FedftError
from fedft.privacy.models.interface import PrivacyModel, privacy_model
from fedft.registries import PRIVACY_MODELS
from fedft.store import RunStore
from tests.federation import run_inline, tiny_config

THIRD = "homomorphic"


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> PrivacyModel:
    """A further kind in the registry, whose parts nobody has written."""
    example = PRIVACY_MODELS.get("example")
    model = PrivacyModel(
        unit=example.unit,
        private=True,
        charged_at_client=True,
        forbids=lambda _config: (),
        client="fedft.client.worker.local_privacy:HOMOMORPHIC",
        server="fedft.coordinator.central_mechanism:Homomorphic",
    )
    get = PRIVACY_MODELS.get
    monkeypatch.setattr(PRIVACY_MODELS, "get", lambda name: model if name == THIRD else get(name))
    return model


@pytest.mark.parametrize("name", PRIVACY_MODELS.names())
def test_every_kind_has_a_part_at_the_client_and_one_at_the_server(name: str) -> None:
    model = PRIVACY_MODELS.get(name)

    part: LocalPrivacy = local_privacy(model)
    assert callable(part.train)
    assert all(callable(step.apply) for step in part.steps)
    server = resolve_name(model.server)
    for method in ("draw", "stated", "release", "max_norm", "limit"):
        assert hasattr(server, method)


def test_no_module_compares_the_name_of_a_kind() -> None:
    compared = re.compile(r"privacy\.mechanism *(==|!=|in\b|is\b)|match .*privacy\.mechanism")
    files = sorted((Path(__file__).parents[2] / "fedft").rglob("*.py"))

    assert [path.name for path in files if compared.search(path.read_text(encoding="utf-8"))] == []


def test_a_kind_that_is_not_listed_is_an_error(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    unknown = config.model_copy(update={"privacy": config.privacy.model_copy(update={"mechanism": THIRD})})

    with pytest.raises(FedftError, match="FEDFT-1010"):
        privacy_model(unknown)
    with pytest.raises(FedftError, match="FEDFT-1003"):
        tiny_config(tmp_path, **{"privacy.mechanism": THIRD})


def test_a_kind_without_parts_is_nobody_elses(tmp_path: Path, third: PrivacyModel) -> None:
    config = tiny_config(tmp_path)
    unknown = config.model_copy(update={"privacy": config.privacy.model_copy(update={"mechanism": THIRD})})

    assert privacy_model(unknown) is third
    with pytest.raises(FedftError, match="FEDFT-1013"):
        local_privacy(third)
    with pytest.raises(FedftError, match="FEDFT-1013"):
        central_mechanism(
            unknown, "run", RunStore(tmp_path / "store"), Manifest.of({"r": np.zeros(1, np.float32)})
        )


def test_without_privacy_nothing_of_it_is_asked_for_or_stated(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path, **{"rounds.total": 1, "evaluation.every": 0}))

    (record,) = store.rounds(run.id)[1:]
    assert record.privacy is None
    assert [update.privacy for update in record.updates] == [None] * 3
