"""Secure aggregation between real processes over the gRPC link, a worker killed in each of its steps.

FEDFT_MASKED_SITES sets the number of sites (default: four, of which one may drop out). With seven a
cohort that has lost one client can lose another; with four that round is lost.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

from fedft.client.worker.answer import process_worker
from fedft.wire import InstructionKind
from tests.coordinator.masked import killed, masked_config
from tests.deployment import Deployment
from tests.federation import run_inline

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployment"), pytest.mark.timeout(3600)]

SITES = int(os.environ.get("FEDFT_MASKED_SITES", "4"))
STEPS = [
    ("client-001", InstructionKind.ADVERTISE, 2),
    ("client-001", InstructionKind.SHARE, 3),
    ("client-002", InstructionKind.RECEIVE, 4),
    ("client-002", InstructionKind.TRAIN, 5),
    ("client-001", InstructionKind.UNMASK, 6),
    ("client-003", InstructionKind.TRAIN, 7),
    ("client-001", InstructionKind.ATTEST, 7),
]


def test_workers_killed_in_every_step_leave_the_sum_that_the_same_integers_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = masked_config(
        tmp_path,
        **{
            "data.partition.clients": SITES,
            "rounds.total": 8,
            "rounds.min_clients": SITES,
            "rounds.deadline": 120.0,
            "evaluation.every": 0,
        },
    )
    dies = defaultdict[str, list[str]](list)
    for client, step, number in STEPS:
        dies[client].append(f"{step}:{number}")
    with Deployment(tmp_path / "deployment", SITES) as deployment:
        deployment.pin_peers()
        deployment.start_server()
        for name in deployment.names:
            folder = str(Path(__file__).parent / "dying")
            path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
            deployment.start_site(name, {"FEDFT_DIES_AT": " ".join(dies[name]), "PYTHONPATH": path})
        deployment.wait_connected(*deployment.names)
        found = deployment.wait_complete(deployment.start_run(config))
        starts = {name: deployment.status(name).worker_starts for name in deployment.names}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "inline-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "inline-state"))
    process_worker.cache_clear()
    inline = run_inline(config, client_app=killed(*STEPS))[1]
    assert found["final_digest"] == inline.final_digest

    counted = [
        sum(update["status"] == "accepted" for update in record["updates"]) for record in found["committed"]
    ]
    last = SITES - 1 if SITES > 6 else 0
    assert counted[1:] == [SITES, *[SITES - 1] * 4, SITES, last, SITES]
    for name in deployment.names:
        assert starts[name] >= 1 + len(dies[name])
