"""The operator is not locked out by following the docs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedft.errors import FedftError
from fedft.identity.authority import Authority
from fedft.identity.enrolment import enroll
from fedft.identity.names import checked_member_name
from fedft.identity.registry import Registry
from fedft.identity.site_files import make_identity
from fedft.server.admin.client import AdminClient
from fedft.server.operators import enroll_operator
from fedft.server.settings import ServerSettings, initialise
from tests.cli.run import fedft


@pytest.fixture
def server(tmp_path: Path) -> ServerSettings:
    settings = ServerSettings(hosts=("localhost",), folder=tmp_path / "server")
    initialise(settings)
    return settings


def _registry(server: ServerSettings) -> Registry:
    return Registry(server.folder / "server.sqlite")


def _renew(server: ServerSettings, folder: Path, *, days: int = 30, replace: bool = False) -> str:
    request = (folder / "request.json").read_text()
    authority = Authority(server.folder / "ca")
    record, certificate, _ = enroll(_registry(server), authority, request, None, days=days, replace=replace)
    (folder / "certificate.pem").write_text(certificate)
    return record.role


def test_an_operator_who_renews_stays_one_and_a_new_key_is_a_clients(
    server: ServerSettings, tmp_path: Path
) -> None:
    assert _renew(server, server.folder / "admin") == "operator"
    make_identity(tmp_path / "site", "site", server.bundle())
    assert _renew(server, tmp_path / "site") == "client"


def test_the_last_operator_is_neither_demoted_nor_replaced_nor_revoked(
    server: ServerSettings, tmp_path: Path
) -> None:
    registry, authority = _registry(server), Authority(server.folder / "ca")
    request = (server.folder / "admin" / "request.json").read_text()
    with pytest.raises(FedftError, match="FEDFT-6215"):
        enroll(registry, authority, request, "client")
    make_identity(tmp_path / "other", "operator", server.bundle())
    with pytest.raises(FedftError, match="FEDFT-6215"):
        _renew(server, tmp_path / "other", replace=True)
    with pytest.raises(FedftError, match="FEDFT-6215"):
        registry.revoke("operator", "by mistake")
    assert registry.member("operator").role == "operator"
    enroll_operator(server, tmp_path / "second", "second")
    assert registry.revoke("operator", "has left").revoked_at


def test_whoever_has_the_servers_folder_renews_an_expired_operator(
    server: ServerSettings, tmp_path: Path
) -> None:
    admin = server.folder / "admin"
    _renew(server, admin, days=-1)
    with pytest.raises(FedftError, match=r"FEDFT-7054.*fedft server operator"):
        AdminClient(admin)
    result = fedft("server", "operator", str(server.folder), str(admin), "--json")
    assert json.loads(result.stdout)["certificate"] == str(admin / "certificate.pem")
    AdminClient(admin).close()
    assert [record.role for record in _registry(server).members()] == ["operator"]


@pytest.mark.parametrize("name", ["../../x", "", ".", "..", "a/b", "-x", "x" * 65, "x" * 70, "é", "a\n"])
def test_a_name_names_a_file_and_no_path(name: str, tmp_path: Path, server: ServerSettings) -> None:
    with pytest.raises(FedftError, match="FEDFT-7056"):
        checked_member_name(name)
    with pytest.raises(FedftError, match="FEDFT-7056"):
        make_identity(tmp_path / "inside", name, server.bundle())
    bundle = server.folder / "join.json"
    result = fedft("admin", "join", str(bundle), f"--name={name}")
    assert result.exit_code == 1
    assert "FEDFT-7056" in result.stderr
