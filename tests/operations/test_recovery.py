"""The cures of docs/operations.md, step by step on real files and a real server process."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import tomli_w

from fedft.client.site.config import load_site
from fedft.client.site.join import join_site
from fedft.client.site.ledger import open_ledger
from fedft.client.worker.answer import process_worker
from fedft.errors import FedftError
from fedft.identity import keys
from fedft.identity.authority import Authority
from fedft.identity.enrolment import enroll
from fedft.identity.registry import Registry
from fedft.server.admin.client import AdminClient
from fedft.transport.client import LinkClient
from fedft.transport.tls import start_server
from tests.cli.run import fedft, output_json
from tests.deployment import FEDFT, Deployment, free_ports
from tests.federation import run_inline, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployment")]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
VERSIONS = ROOT / "tests" / "store" / "versions"
SITE = "client-000"


def by_the_book(*steps: str) -> None:
    """The page says what the test does."""
    flat = " ".join(PAGE.split())
    assert [step for step in steps if step not in flat] == []


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(tmp_path / "deployment", sites=1) as running:
        yield running


def serve(deployment: Deployment) -> None:
    deployment.start_server()
    deployment.wait(lambda: answers(deployment.settings.folder / "admin"), 60, "the server does not answer")


def answers(operator: Path) -> bool:
    """Whether an operator gets an answer."""
    try:
        client = AdminClient(operator)
    except FedftError:
        return False
    client.close()
    return fedft("admin", "--admin", operator, "health").exit_code == 0


def ended(*arguments: str) -> str:
    """What a process that does not start has to say."""
    done = subprocess.run([FEDFT, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    return done.stderr


def checks(deployment: Deployment, name: str = SITE) -> dict[str, str]:
    """What ``fedft client check`` finds at a site, with "ok" for what is good."""
    found = json.loads(fedft("client", "check", "-c", deployment.site(name), "--no-model", "--json").stdout)
    return {item["name"]: "ok" if item["good"] else item["found"] for item in found["checks"]}


def test_an_expired_certificate_of_the_server_is_issued_anew_by_a_restart(deployment: Deployment) -> None:
    by_the_book("The server issues its own anew when it starts", "restart it once a month")
    settings = deployment.settings
    key = keys.load_tls_key(settings.tls.key).public_key()
    expired = Authority(settings.folder / "ca").issue("fedft", key, hosts=settings.hosts, days=-1)
    settings.tls.certificate.write_bytes(keys.certificate_pem(expired))
    stale, port = start_server(settings.tls, "127.0.0.1:0", lambda _: None, threads=2)
    site = load_site(deployment.site(SITE))
    with pytest.raises(FedftError, match=r"FEDFT-703[01]"):
        LinkClient(site.tls, f"localhost:{port}", Event()).connection(lambda _: None, lambda _: None)
    stale.stop(None)

    serve(deployment)

    assert checks(deployment)["server"] == "ok"


def test_an_expired_certificate_of_a_site_is_renewed_from_the_same_request(deployment: Deployment) -> None:
    by_the_book("enroll the same `request.json` again, send `certificate.pem`, restart the daemon")
    serve(deployment)
    key = keys.fingerprint(keys.load_certificate(deployment.folder / SITE / "certificate.pem"))
    deployment.enroll(SITE, days=-1)
    assert "FEDFT-7054" in checks(deployment)["certificate"]
    assert "FEDFT-7054" in ended("client", "run", "-c", str(deployment.site(SITE)))

    admin = deployment.settings.folder / "admin"
    enrolled = fedft(
        "admin", "--admin", admin, "clients", "enroll", deployment.folder / SITE / "request.json", "--json"
    )

    found = output_json(enrolled)
    assert (found["role"], found["fingerprint"]) == ("client", key)
    assert {checks(deployment)[name] for name in ("certificate", "server")} == {"ok"}


def test_an_operator_whose_certificate_expired_or_who_is_lost_is_helped_by_the_servers_folder(
    deployment: Deployment, tmp_path: Path
) -> None:
    by_the_book(
        "fedft server operator consortium consortium/admin", "fedft server operator consortium bob --name bob"
    )
    serve(deployment)
    folder = deployment.settings.folder
    expire(folder, (folder / "admin" / "request.json").read_text())
    assert not answers(folder / "admin")
    assert fedft("server", "operator", folder, folder / "admin").exit_code == 0
    assert answers(folder / "admin")

    shutil.rmtree(folder / "admin")
    assert fedft("server", "operator", folder, tmp_path / "bob", "--name", "bob").exit_code == 0
    assert answers(tmp_path / "bob")


def expire(folder: Path, request: str) -> None:
    """Give the operator a certificate that has expired."""
    registry = Registry(folder / "server.sqlite")
    _, certificate, _ = enroll(registry, Authority(folder / "ca"), request, "operator", days=-1)
    registry.close()
    (folder / "admin" / "certificate.pem").write_text(certificate)


def test_a_server_and_a_site_come_back_from_their_backups_and_the_run_ends_with_the_same_bits(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_the_book(
        "SQLite's own backup of the `.sqlite` files",
        "and then copy `store/states` and `store/frames`",
        "put the folder back and run `fedft server run`",
        "A site: stop the daemon, copy its folder",
    )
    config = tiny_config(tmp_path, **{"data.partition.clients": 1, "rounds.total": 5, "evaluation.every": 0})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    process_worker.cache_clear()
    expected = run_inline(config)[1].final_digest
    deployment.start()
    run = deployment.start_run(config)
    deployment.wait_round(run, 2)
    back_up(deployment.settings.folder, tmp_path / "copy")
    held = deployment.rounds(run)
    deployment.daemons[SITE].terminate()
    shutil.copytree(deployment.folder / SITE, tmp_path / "site")
    deployment.wait(lambda: deployment.rounds(run) >= min(held, 5), 60, "nothing is committed")
    assert deployment.server is not None
    deployment.server.kill()
    shutil.rmtree(deployment.settings.folder)
    shutil.rmtree(deployment.folder / SITE)

    shutil.copytree(tmp_path / "copy", deployment.settings.folder)
    shutil.copytree(tmp_path / "site", deployment.folder / SITE)
    deployment.start_server()
    deployment.start_site(SITE)

    assert deployment.wait_complete(run)["final_digest"] == expected
    log = fedft("admin", "--admin", deployment.settings.folder / "admin", "audit-log", "--json")
    assert log.exit_code == 0, log.stderr


def back_up(folder: Path, copy: Path) -> None:
    """Copy a running server's folder as the page says."""
    databases = [path.relative_to(folder) for path in folder.rglob("*.sqlite")]
    for name in databases:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(folder / name) as source, sqlite3.connect(copy / name) as target:
            source.backup(target)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and ".sqlite" not in path.suffix and not path.name.startswith("lock"):
            if path.name.endswith(("-wal", "-shm")):
                continue
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy / name)


def test_a_site_of_version_0_1_moves_its_ledger_into_its_state_folder(deployment: Deployment) -> None:
    by_the_book("mv ledger.sqlite ledger.sqlite.head state/", "FEDFT-8201", "fedft client pin")
    folder = deployment.folder / "hospital"
    join_site(deployment.bundle, folder, "hospital", partition="0/1", budget=(4.0, 1e-3))
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        connection.executescript((VERSIONS / "chain_1.sql").read_text())
    connection.close()
    shutil.copy(VERSIONS / "chain_1.head", folder / "ledger.sqlite.head")
    assert "FEDFT-8201" in checks(deployment, "hospital")["ledger"]
    assert "mv " in checks(deployment, "hospital")["ledger"]

    (folder / "state").mkdir(exist_ok=True)
    subprocess.run(["mv", "ledger.sqlite", "ledger.sqlite.head", "state/"], cwd=folder, check=True)

    ledger = open_ledger(load_site(folder / "site.toml"))
    assert len(ledger.events("notes")) == 1
    assert "FEDFT-8201" not in checks(deployment, "hospital")["ledger"]


def test_a_server_of_version_0_1_opens_its_files_and_shows_what_is_in_them(deployment: Deployment) -> None:
    by_the_book("Pause the runs, stop the server, back up its folder, install, start, resume")
    folder = deployment.settings.folder
    (folder / "server.sqlite").unlink()
    (folder / "store").mkdir(exist_ok=True)
    for version, path in {"registry_1": "server.sqlite", "run_store_1": "store/fedft.sqlite"}.items():
        with sqlite3.connect(folder / path) as connection:
            connection.executescript((VERSIONS / f"{version}.sql").read_text())
        connection.close()
    registry = Registry(folder / "server.sqlite")
    known = [record.name for record in registry.members()]
    registry.close()
    assert fedft("server", "operator", folder, folder / "bob", "--name", "bob").exit_code == 0
    deployment.start_server()
    deployment.wait(lambda: answers(folder / "bob"), 60, "the server does not answer")

    runs = output_json(fedft("admin", "--admin", folder / "bob", "runs", "list", "--json"))["runs"]
    members = output_json(fedft("admin", "--admin", folder / "bob", "clients", "list", "--json"))["clients"]

    assert [(run["name"], run["rounds"]) for run in runs] == [("demo", 2)]
    assert {member["name"] for member in members} == {*known, "bob"}


def test_a_second_server_on_the_folder_is_refused_and_one_on_a_copy_finds_the_ports_taken(
    deployment: Deployment, tmp_path: Path
) -> None:
    by_the_book("FEDFT-6209", "FEDFT-6203")
    serve(deployment)
    shutil.copytree(deployment.settings.folder, tmp_path / "copy")
    for folder, code in ((deployment.settings.folder, "FEDFT-6209"), (tmp_path / "copy", "FEDFT-6203")):
        assert code in ended("server", "run", str(folder))
    assert answers(deployment.settings.folder / "admin")


def test_a_server_that_moves_has_a_new_certificate_and_sites_and_operators_change_an_address(
    deployment: Deployment, tmp_path: Path
) -> None:
    by_the_book(
        "## Moving", "`hosts` and the addresses in `server.toml`", "`[server] address` of `site.toml`"
    )
    by_the_book("`admin.toml`", "`identities` of `policy.toml`")
    moved = tmp_path / "elsewhere"
    shutil.copytree(deployment.settings.folder, moved)
    link, admin = free_ports(2)
    change(moved / "server.toml", hosts=["127.0.0.1"], link=f"127.0.0.1:{link}", admin=f"127.0.0.1:{admin}",
           metrics="")  # fmt: skip
    process = deployment._start("moved.log", "server", "run", str(moved))
    change(moved / "admin" / "admin.toml", address=f"127.0.0.1:{admin}")
    deployment.wait(lambda: answers(moved / "admin"), 60, "the moved server does not answer")

    assert "FEDFT-7030" in checks(deployment)["server"]
    change(deployment.site(SITE), server={"address": f"127.0.0.1:{link}"})
    assert checks(deployment)["server"] == "ok"
    assert json.loads((moved / "join.json").read_text())["link_address"] == f"127.0.0.1:{link}"
    assert process.alive


def test_a_site_that_moves_is_the_same_one_elsewhere(deployment: Deployment, tmp_path: Path) -> None:
    by_the_book("a site's folder can be copied to another machine", "FEDFT-7034")
    serve(deployment)
    shutil.copytree(deployment.folder / SITE, tmp_path / "new-machine")
    found = json.loads(
        fedft("client", "check", "-c", tmp_path / "new-machine" / "site.toml", "--no-model", "--json").stdout
    )
    assert [item["found"] for item in found["checks"] if item["name"] == "server" and item["good"]]


def test_an_altered_audit_log_stops_changes(deployment: Deployment) -> None:
    by_the_book("changes are refused (FEDFT-8203, 8204)", "restore both files")
    serve(deployment)
    folder, admin = deployment.settings.folder, deployment.settings.folder / "admin"
    request = deployment.folder / SITE / "request.json"
    renew = ("admin", "--admin", admin, "clients", "enroll", request)
    assert fedft(*renew).exit_code == 0
    head = folder / "audit.sqlite.head"
    good = head.read_bytes()
    head.write_bytes(good.replace(good[-20:-10], b"0" * 10))
    refused = fedft(*renew)
    assert refused.exit_code == 1
    assert re.search("FEDFT-820[34]", refused.stderr)
    head.write_bytes(good)
    assert fedft(*renew).exit_code == 0


def change(path: Path, **values: Any) -> None:
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), **values}))


CURES = {
    "the server is killed or restarted": (
        "faults/test_deployment.py",
        "test_a_server_killed_again_and_again_comes_back_by_itself_and_ends_with_the_same_bits",
    ),
    "a daemon is killed": (
        "faults/test_deployment.py",
        "test_daemons_and_workers_killed_at_random_moments_cost_no_more_than_their_round",
    ),
    "a worker dies (memory)": (
        "client/daemon/test_instruction_handler.py",
        "test_a_worker_that_dies_declines_the_round_and_no_later_one",
    ),
    "a site is silent": (
        "faults/test_deployment.py",
        "test_a_site_that_never_answers_is_late_and_takes_part_again_later",
    ),
    "the network is cut": (
        "transport/test_transfer.py",
        "test_an_upload_that_is_cut_goes_on_without_starting_over",
    ),
    "the server's disk is full": (
        "operations/test_full_disk.py",
        "test_a_server_whose_disk_is_full_goes_on_by_itself_once_there_is_room",
    ),
    "a site's answer is malformed or hostile": (
        "coordinator/test_hostile_answers.py",
        "test_a_hostile_answer_costs_its_own_client_the_round_and_nobody_else",
    ),
    "the coordinating thread ends": (
        "server/test_daemon.py",
        "test_a_server_whose_coordinating_thread_ended_ends_too",
    ),
    "a site's disk is full": (
        "faults/test_deployment.py",
        "test_a_full_disk_at_a_site_declines_its_part_and_harms_no_round",
    ),
    "a clock is wrong": ("client/daemon/test_preflight.py", "test_a_clock_that_is_wrong_by_minutes"),
    "two servers are started by mistake": (
        "operations/test_recovery.py",
        "test_a_second_server_on_the_folder_is_refused_and_one_on_a_copy_finds_the_ports_taken",
    ),
    "a certificate has expired": (
        "operations/test_recovery.py",
        "test_an_expired_certificate_of_a_site_is_renewed_from_the_same_request",
    ),
    "the last operator is lost": (
        "operations/test_recovery.py",
        "test_an_operator_whose_certificate_expired_or_who_is_lost_is_helped_by_the_servers_folder",
    ),
    "the server's or a site's folder is lost": (
        "operations/test_recovery.py",
        "test_a_server_and_a_site_come_back_from_their_backups_and_the_run_ends_with_the_same_bits",
    ),
    "the audit log does not verify": (
        "operations/test_recovery.py",
        "test_an_altered_audit_log_stops_changes",
    ),
}


def rows() -> list[str]:
    """The first column of the table of cures."""
    table = PAGE[PAGE.index("## Recovery") :]
    return re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)[1:]


def test_every_cure_of_the_page_has_a_test() -> None:
    assert list(CURES) == rows()
    for file, name in CURES.values():
        assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), name
