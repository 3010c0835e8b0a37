"""The operator's commands against a real server process, over mutual TLS."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fedft.cli.main import app
from fedft.codecs import state_digest
from fedft.config import RunConfig, load_config
from fedft.config.load import to_json
from fedft.errors import FedftError
from fedft.identity.site_files import make_identity, write_admin_file
from fedft.server.admin.answers import ANSWERS, Health, Members
from fedft.server.admin.client import AdminClient
from fedft.server.settings import initialise, load_settings
from fedft.store import RoundRecord, RunStore, UpdateRecord
from fedft.wire.v1 import admin_pb2 as pb
from tests.deployment import FEDFT, Deployment, Process, wait_until

LONG = {"layer.R": np.zeros((2, 2), np.float32)}
CHANGES = [
    ("Enroll", pb.EnrollRequest(request="{}")),
    ("RevokeClient", pb.RevokeRequest(name="client-000")),
    ("StartRun", pb.StartRunRequest(config_json="{}")),
    ("PauseRun", pb.RunRequest(run="latest")),
    ("ResumeRun", pb.RunRequest(run="latest")),
    ("StopRun", pb.RunRequest(run="latest")),
]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("admin") / "deployment", sites=2) as running:
        running.start_server()
        wait_until(lambda: _up(running))
        yield running


def _up(deployment: Deployment) -> bool:
    try:
        return bool(deployment.call("Health"))
    except FedftError:
        return False


def _fedft(deployment: Deployment, *arguments: str, code: int = 0) -> dict[str, Any]:
    folder = str(deployment.settings.folder / "admin")
    result = CliRunner().invoke(app, ["admin", "--admin", folder, *arguments, "--json"])
    assert result.exit_code == code, result.output
    found: dict[str, Any] = (
        json.loads(result.stdout.strip().splitlines()[-1]) if result.stdout.strip() else {}
    )
    return found


def _member(deployment: Deployment, name: str, role: str) -> AdminClient:
    folder = deployment.folder / name
    request = make_identity(folder, name, deployment.settings.bundle())
    _fedft(deployment, "clients", "enroll", str(request), "--role", role)
    write_admin_file(folder, deployment.settings.admin)
    return AdminClient(folder)


def test_every_answer_has_a_schema_version(deployment: Deployment) -> None:
    for arguments in (["health"], ["clients", "list"], ["runs", "list"], ["audit-log"], ["incidents"]):
        assert _fedft(deployment, *arguments)["schema_version"] == 1


def test_a_run_larger_than_a_message_can_be_looked_at(deployment: Deployment) -> None:
    store = RunStore(deployment.settings.store_folder)
    run = store.create_run("long", to_json(load_config("demo", {"data.partition.clients": 50})))
    metrics = {f"metric_{number}": 1 / (number + 1) for number in range(8)}
    updates = tuple(UpdateRecord(f"client-{i:03}", "accepted", metrics=metrics) for i in range(50))
    for number in range(300):
        store.commit_round(
            run.id,
            RoundRecord(number, state_digest(LONG), updates=updates),
            LONG,
            residual=None,
            deliveries=[],
        )

    found = _fedft(deployment, "runs", "show", run.id)

    assert len(found["committed"]) == 300
    assert len(json.dumps(found)) > 4 << 20, "more than one message of gRPC holds"
    first, _ = deployment.admin.watch(run.id)
    assert len(first.committed) == 300
    assert _fedft(deployment, "logs", run.id)["run"] == run.id
    assert _fedft(deployment, "runs", "list")["runs"][0]["total_rounds"] == 40


def test_every_method_has_a_schema(deployment: Deployment) -> None:
    for method in ANSWERS:
        result = CliRunner().invoke(app, ["admin", "schema", method])
        assert json.loads(result.stdout)["title"] == ANSWERS[method].__name__


def test_health_says_who_is_connected_and_the_page_for_monitors_agrees(deployment: Deployment) -> None:
    found = _fedft(deployment, "health")
    assert (found["status"], found["connected"], found["current_run"]) == ("ok", [], "")
    with urllib.request.urlopen(f"http://{deployment.settings.metrics}/healthz") as page:
        assert page.read() == b"ok\n"
    with urllib.request.urlopen(f"http://{deployment.settings.metrics}/metrics") as page:
        assert b"fedft_clients_connected 0.0" in page.read()


def test_a_viewer_looks_and_changes_nothing(deployment: Deployment) -> None:
    viewer = _member(deployment, "auditor", "viewer")
    assert viewer.ask(Members, "ListClients", pb.ListClientsRequest()).clients
    before = deployment.call("ReadAuditLog", pb.AuditRequest())["entries"]
    for method, request in CHANGES:
        with pytest.raises(FedftError, match="FEDFT-6207"):
            viewer.ask(ANSWERS[method], method, request)
    with pytest.raises(FedftError, match="FEDFT-6207"):
        viewer.export(pb.ExportRequest(run="latest", kind="peft"), deployment.folder / "stolen")
    assert deployment.call("ReadAuditLog", pb.AuditRequest())["entries"] == before


def test_a_site_has_no_business_at_the_admin_service(deployment: Deployment) -> None:
    folder = deployment.folder / "client-000"
    write_admin_file(folder, deployment.settings.admin)
    for method, request in [("Health", pb.HealthRequest()), *CHANGES]:
        with pytest.raises(FedftError, match="FEDFT-6207"):
            AdminClient(folder).ask(ANSWERS[method], method, request)


def test_every_change_is_in_the_audit_log_with_who_and_what(deployment: Deployment) -> None:
    _member(deployment, "second", "operator")
    _fedft(deployment, "clients", "revoke", "second", "--reason", "left the project")
    entries = _fedft(deployment, "audit-log", "--last", "2")["entries"]
    assert [(entry["who"], entry["what"]) for entry in entries] == [
        ("operator", "enroll"),
        ("operator", "revoke"),
    ]
    assert (entries[0]["name"], entries[0]["role"]) == ("second", "operator")
    assert (entries[1]["name"], entries[1]["reason"]) == ("second", "left the project")


def test_a_revoked_operator_is_out_at_once(deployment: Deployment) -> None:
    third = _member(deployment, "third", "operator")
    assert third.ask(Health, "Health", pb.HealthRequest())
    _fedft(deployment, "clients", "revoke", "third")
    with pytest.raises(FedftError, match="FEDFT-7033"):
        third.ask(Health, "Health", pb.HealthRequest())


def test_a_name_has_one_key_until_it_is_replaced(deployment: Deployment) -> None:
    again = make_identity(deployment.folder / "again", "client-001", deployment.settings.bundle())
    _fedft(deployment, "clients", "enroll", str(again), code=1)
    old = _fedft(deployment, "clients", "show", "client-001")
    new = _fedft(deployment, "clients", "enroll", str(again), "--replace")
    assert old["fingerprint"] != new["fingerprint"]
    listed = [
        item for item in _fedft(deployment, "clients", "list")["clients"] if item["name"] == "client-001"
    ]
    assert sorted(bool(item["revoked_at"]) for item in listed) == [False, True]
    renewed = _fedft(deployment, "clients", "enroll", str(again))
    assert renewed["fingerprint"] == new["fingerprint"]


def test_a_run_without_clients_waits_and_can_be_paused_resumed_and_stopped(deployment: Deployment) -> None:
    run = _fedft(deployment, "runs", "start", "demo", "--set", "name=quiet")["id"]
    assert _fedft(deployment, "runs", "show", run)["state"] in ("waiting", "running")
    assert _fedft(deployment, "runs", "pause", run)["id"] == run
    wait_until(lambda: _fedft(deployment, "runs", "show", run)["state"] != "ending")
    assert _fedft(deployment, "runs", "show", run)["state"] in ("paused", "failed")
    _fedft(deployment, "runs", "pause", run, code=1)
    _fedft(deployment, "runs", "resume", run)
    _fedft(deployment, "runs", "stop", run)
    wait_until(lambda: _fedft(deployment, "runs", "show", run)["state"] == "stopped")
    _fedft(deployment, "runs", "resume", run, code=1)
    _fedft(deployment, "runs", "watch", run, code=1)
    _fedft(deployment, "rounds", "show", run, code=1)


def test_a_run_with_a_mistake_fails_with_its_code_and_the_server_goes_on(deployment: Deployment) -> None:
    wrong = RunConfig.model_validate({"model": {"source": "/no/such/model"}})
    run = deployment.start_run(wrong)
    found = deployment.wait_state(run, "failed")
    assert "FEDFT-2001" in found["error"]
    assert _fedft(deployment, "health")["status"] == "ok"


def test_mistakes_of_the_operator_have_their_codes(deployment: Deployment) -> None:
    cases = [
        ("ShowClient", pb.ClientRequest(name="nobody"), "FEDFT-6206"),
        ("ShowRun", pb.RunRequest(run="nothing"), "FEDFT-6002"),
        ("StartRun", pb.StartRunRequest(config_json='{"rounds": {"total": 0}}'), "FEDFT-1003"),
        ("Enroll", pb.EnrollRequest(request="{}"), "FEDFT-7056"),
        ("RevokeClient", pb.RevokeRequest(name="operator"), "FEDFT-6207"),
    ]
    for method, request, code in cases:
        with pytest.raises(FedftError, match=code):
            deployment.call(method, request)


def test_a_second_server_and_a_taken_port_end_with_their_codes(
    deployment: Deployment, tmp_path: Path
) -> None:
    second = Process([FEDFT, "server", "run", str(deployment.settings.folder)], tmp_path / "second.log")
    assert second.popen.wait(60) != 0
    assert "FEDFT-6209" in second.log.read_text()

    values = {
        "link": deployment.settings.link,
        "admin": "127.0.0.1:0",
        "metrics": "",
        "folder": tmp_path / "other",
    }
    initialise(deployment.settings.model_copy(update=values))
    third = Process([FEDFT, "server", "run", str(tmp_path / "other")], tmp_path / "third.log")
    assert third.popen.wait(60) != 0
    assert "FEDFT-6203" in third.log.read_text()


def test_an_unreachable_server_is_told_from_a_refusal_by_the_exit_code(tmp_path: Path) -> None:
    from fedft.server.settings import ServerSettings

    initialise(ServerSettings(hosts=("localhost",), admin="127.0.0.1:1", folder=tmp_path / "server"))
    folder = str(tmp_path / "server" / "admin")
    result = CliRunner().invoke(app, ["admin", "--admin", folder, "health"])
    assert result.exit_code == 3
    assert "FEDFT-7030" in result.stderr


def test_a_servers_folder_is_made_once_and_its_mistakes_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    arguments = ["server", "init", str(folder), "--host", "fl.example.org", "--json"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert load_settings(folder).bundle().link_address == "fl.example.org:7443"
    assert CliRunner().invoke(app, arguments).exit_code == 1
    with pytest.raises(FedftError, match="FEDFT-6202"):
        initialise(load_settings(folder))
    (folder / "server.toml").write_text('link = 5\nhosts = ["x"]\ntypo = 1\n')
    with pytest.raises(FedftError, match=r"FEDFT-6204(?s:.*)link(?s:.*)typo"):
        load_settings(folder)
    with pytest.raises(FedftError, match="FEDFT-6201"):
        load_settings(tmp_path)
