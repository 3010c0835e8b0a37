"""The whole of it on real processes: the digest of the simulation, a resident model, the operator's verbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedft.client.answer import process_worker
from tests.deployment import Deployment
from tests.federation import run_inline, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deployment")


@pytest.fixture(scope="module")
def deployment(folder: Path) -> Iterator[Deployment]:
    with Deployment(folder / "deployment") as running:
        yield running.start()


def test_the_link_ends_with_the_digest_of_the_simulation_and_loads_each_model_once(
    deployment: Deployment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDFT_CACHE", str(folder / "inline-cache"))
    process_worker.cache_clear()
    config = tiny_config(folder, **{"rounds.total": 3, "evaluation.federated": True})
    expected = run_inline(config)[1].final_digest

    found = deployment.wait_complete(deployment.start_run(config))

    assert found["final_digest"] == expected
    updates = [update for record in found["committed"][1:] for update in record["updates"]]
    assert [update["status"] for update in updates] == ["accepted"] * 9
    loads = {u["client"]: 0.0 for u in updates}
    for record in found["committed"][2:]:
        for update in record["updates"]:
            loads[update["client"]] += update["metrics"]["model_loads"]
    assert loads == {"client-000": 0.0, "client-001": 0.0, "client-002": 0.0}
    assert [deployment.status(name).worker_starts for name in deployment.names] == [1, 1, 1]
