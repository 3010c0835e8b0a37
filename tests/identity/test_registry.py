"""Who is enrolled, in the server's registry."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fedft.errors import FedftError
from fedft.identity.registry import MemberRecord, Registry
from fedft.statements import LedgerWitness

ONE = MemberRecord("f1", "hospital", "client", "", "2026-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00")
ANOTHER_NAME, ANOTHER_KEY = replace(ONE, name="clinic"), replace(ONE, fingerprint="f2")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry(tmp_path / "server.sqlite")
    found.enroll(ONE)
    return found


def test_two_entries_of_one_number_are_two_ledgers(registry: Registry) -> None:
    first, third = LedgerWitness(1, "aa" * 32), LedgerWitness(3, "cc" * 32)
    assert registry.last_witness("hospital") is None
    registry.witness("hospital", third)
    registry.witness("hospital", first)  # a round that is answered again from the journal
    registry.witness("hospital", third)
    assert registry.last_witness("hospital") == third
    registry.witness("clinic", LedgerWitness(3, "dd" * 32))
    with pytest.raises(FedftError, match=r"FEDFT-8211 .*hospital has shown another entry 3"):
        registry.witness("hospital", LedgerWitness(3, "ee" * 32))
    assert registry.last_witness("hospital") == third


def test_a_key_keeps_its_name(registry: Registry) -> None:
    with pytest.raises(FedftError, match=r"FEDFT-6205 .*hospital"):
        registry.enroll(ANOTHER_NAME)

    assert registry.members() == [ONE]


def test_a_name_keeps_its_key_unless_it_is_replaced(registry: Registry) -> None:
    with pytest.raises(FedftError, match=r"FEDFT-6205 .*another key"):
        registry.enroll(ANOTHER_KEY)
    assert registry.members() == [ONE]

    assert registry.enroll(ANOTHER_KEY, replace=True) == [ONE]
    assert registry.member("hospital") == ANOTHER_KEY


@pytest.mark.parametrize("replaces", [False, True])
def test_a_revoked_key_does_not_come_back(registry: Registry, replaces: bool) -> None:
    registry.revoke("hospital", "stolen")

    with pytest.raises(FedftError, match=r"FEDFT-6205 .*revoked"):
        registry.enroll(ONE, replace=replaces)

    with pytest.raises(FedftError, match="FEDFT-7033"):
        registry.require("f1", "client")


def test_a_file_that_is_no_database_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "server.sqlite").write_bytes(b"not a database" * 100)

    with pytest.raises(FedftError, match="FEDFT-6211"):
        Registry(tmp_path / "server.sqlite")


def test_a_registry_that_is_lost_at_work_refuses_everybody(registry: Registry, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "server.sqlite") as database:
        database.execute("DROP TABLE members")

    with pytest.raises(FedftError, match="FEDFT-6211"):
        registry.require("f1", "client")
