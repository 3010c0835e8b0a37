"""What a client keeps of secure aggregation on disk, and what it refuses, through its worker."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedft.client.site.config import SiteConfig
from fedft.client.site.identity import ClientIdentity
from fedft.client.site.secagg import secagg_party
from fedft.client.worker.secagg_journal import DurableJournal
from fedft.errors import FedftError
from fedft.identity.keys import private_pem, write_private
from fedft.secagg.decode import decode_advertisement
from fedft.secagg.encode import encode
from fedft.secagg.introduction import introduced
from fedft.secagg.journal import Step
from fedft.secagg.messages import Roster
from fedft.secagg.session import Session
from fedft.wire import Hello, Instruction, InstructionKind, SecaggAnswer, Update
from tests.client.site.test_enforcement import Hub, site

MASKED = {
    "privacy.mechanism": "none",
    "secagg.mode": "required",
    "codec.name": "dense",
    "codec.error_feedback": True,
}
CLIENTS: list[ClientIdentity] = []


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    CLIENTS[:] = [ClientIdentity(part, 3) for part in range(3)]
    return tmp_path / "state" / "fedft" / "secagg"


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path, **MASKED)


def public(client: ClientIdentity) -> bytes:
    return secagg_party(client).key.public_key().public_bytes_raw()


def terms(hub: Hub, **changes: Any) -> Session:
    members = sorted(map(public, CLIENTS))
    digest = bytes.fromhex(hub.model.frame_digest)
    return replace(Session("run-1", 1, 1, digest, tuple(members), 3), **changes)


def advertise(hub: Hub, session: Session) -> Instruction:
    instruction = hub.book.step(InstructionKind.ADVERTISE, 1, encode(session))
    return replace(instruction, setup=hub.model.setup)


def test_an_entry_is_there_after_the_journal_is_opened_again_and_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with DurableJournal(path, create=True) as journal:
        journal.append(Step.MASKED, b"round 1", b"covers")
        with pytest.raises(FedftError, match="FEDFT-8825"):
            journal.append(Step.MASKED, b"round 1", b"other")
    with DurableJournal(path, create=False) as journal:
        assert journal.find(Step.MASKED, b"round 1") == b"covers"
        assert journal.find(Step.UNMASKED, b"round 1") is None
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(FedftError, match="FEDFT-8825"):
        DurableJournal(path, create=False)


def test_the_greeting_proves_the_identity_and_says_no_number_of_records(hub: Hub) -> None:
    reply = hub.ask(hub.hello(), CLIENTS[0])

    assert isinstance(reply, Hello)
    assert reply.num_examples == 0
    assert introduced(reply.introduction, "run-1", "client-000") == public(CLIENTS[0])
    with pytest.raises(FedftError, match="FEDFT-8808"):
        introduced(reply.introduction, "run-2", "client-000")
    with pytest.raises(FedftError, match="FEDFT-8808"):
        introduced(reply.introduction[:-1], "run-1", "client-000")


def test_keys_lie_on_disk_for_their_owner_alone_and_are_the_same_when_asked_again(
    hub: Hub, folders: Path
) -> None:
    first = hub.ask(advertise(hub, terms(hub)), CLIENTS[0])
    again = hub.ask(advertise(hub, terms(hub)), CLIENTS[0])

    assert isinstance(first, SecaggAnswer)
    assert first == again
    stored = folders / "client-000" / "run-1.session"
    assert stat.S_IMODE(os.stat(stored).st_mode) == 0o600
    stored.write_bytes(b"{}")
    assert hub.refused(advertise(hub, terms(hub)), CLIENTS[0]).code == "FEDFT-8825"


def test_a_client_whose_journal_is_gone_does_not_go_on_with_its_session(hub: Hub, folders: Path) -> None:
    keys = {}
    session = terms(hub)
    for client in CLIENTS:
        reply = hub.ask(advertise(hub, session), client)
        assert isinstance(reply, SecaggAnswer)
        keys[session.members.index(public(client))] = decode_advertisement(reply.message)
    share = hub.book.step(InstructionKind.SHARE, 1, encode(Roster(session.digest, keys)))
    assert isinstance(hub.ask(share, CLIENTS[0]), SecaggAnswer)
    assert hub.refused(share, CLIENTS[0]).code == "FEDFT-8814"

    (folders / "client-000" / "journal.sqlite").unlink()
    assert hub.refused(share, CLIENTS[0]).code == "FEDFT-7055"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"run_id": "run-2"}, "FEDFT-8809"),
        ({"first_round": 2}, "FEDFT-8809"),
        ({"rounds": 2}, "FEDFT-8809"),
        ({"frame_digest": bytes(32)}, "FEDFT-8809"),
    ],
)
def test_terms_other_than_the_runs_are_refused(hub: Hub, change: dict[str, Any], code: str) -> None:
    assert hub.refused(advertise(hub, terms(hub, **change)), CLIENTS[0]).code == code


def test_a_threshold_other_than_the_runs_is_refused(hub: Hub) -> None:
    strangers = [bytes([number]) * 32 for number in range(3)]
    members = tuple(sorted([*terms(hub).members, *strangers[:1]]))
    session = terms(hub, members=members, threshold=4)
    assert hub.refused(advertise(hub, session), CLIENTS[0]).code == "FEDFT-8809"
    stranger = replace(session, threshold=3)
    assert hub.refused(advertise(hub, stranger), CLIENTS[0]).code == "FEDFT-8803"


def test_an_update_without_masks_never_leaves_a_masked_run(hub: Hub) -> None:
    assert hub.refused(hub.train(), CLIENTS[0]).code == "FEDFT-8829"


def test_a_step_in_a_run_without_masks_is_refused(tmp_path: Path) -> None:
    plain = Hub(tmp_path, **{"privacy.mechanism": "none"})
    assert plain.refused(advertise(plain, terms(plain)), CLIENTS[0]).code == "FEDFT-8829"
    assert isinstance(plain.ask(plain.train(), CLIENTS[0]), Update)


def test_a_site_that_requires_masks_takes_part_in_no_other_run(hub: Hub, tmp_path: Path) -> None:
    rules: dict[str, Any] = {"private": False, "secure_aggregation": True}
    plain = Hub(tmp_path, **{"privacy.mechanism": "none"})
    identity = site(tmp_path / "site", run=plain.config, **rules)
    for instruction in (plain.hello(), plain.train()):
        assert plain.refused(instruction, identity).code == "FEDFT-8309"


def test_a_sites_identity_is_its_signing_key_and_its_pins_are_its_own(hub: Hub, tmp_path: Path) -> None:
    identity = site(tmp_path / "site", run=hub.config, private=False, secure_aggregation=True)
    assert identity.site is not None
    key = secagg_party(CLIENTS[0]).key
    write_private(tmp_path / "site" / "signing.key", private_pem(key))
    assert isinstance(hub.ask(hub.hello(), identity), Hello)
    assert hub.refused(advertise(hub, terms(hub)), identity).code == "FEDFT-8803"

    peers = {f"site-{part}": public(CLIENTS[part]).hex() for part in (1, 2)}
    pinned = replace(identity, site=with_peers(identity.site, peers=peers))
    assert isinstance(hub.ask(advertise(hub, terms(hub)), pinned), SecaggAnswer)
    wary = replace(identity, site=with_peers(identity.site, peers=peers, smallest_cohort=4))
    assert hub.refused(advertise(hub, terms(hub)), wary).code == "FEDFT-8813"


def with_peers(config: SiteConfig, **values: Any) -> SiteConfig:
    return config.model_copy(update={"secagg": config.secagg.model_copy(update=values)})
