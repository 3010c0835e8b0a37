"""A site whose ledger was put back to an older state: the server finds it, and so does the site itself."""

from __future__ import annotations

import contextlib
import threading

import pytest
from flwr.app import Message

from fedft.client.daemon.daemon import Daemon
from fedft.client.site.config import load_site
from fedft.errors import FedftError
from fedft.privacy.accounting.events import Budget, PrivacyEvent
from fedft.privacy.site.ledger import Ledger
from fedft.statements import LedgerWitness, PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.transport.flower_messages import new_message
from fedft.transport.flower_records import pack
from fedft.transport.grid import GrpcGrid
from fedft.wire import ModelRef, RoundRef, Update, encode_reply, seal
from tests.deployment import wait_until
from tests.transport.conftest import Server, Site
from tests.transport.test_endings import _site, no_worker

__all__ = ["no_worker"]


def _answer(server: Server, site: Site, witness: LedgerWitness | None) -> None:
    grid = GrpcGrid(server.board, server.signing_key)
    message: Message = new_message(grid, pack(seal(b"x")), "train", site.node, group="1", ttl=60.0)
    (message_id,) = grid.push_messages([message])
    stated = PrivacyStatement(
        PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE, 1.1, 0.5, 0.01, 40, 2.75, 1e-5, "pld", witness
    )
    update = Update(RoundRef("run-7", 1), ModelRef("", "", "", ""), site.config.name, 1, 0, (), {}, stated)
    site.link.upload(message_id, seal(encode_reply(update), site.signing_key), 10)


def test_the_server_keeps_what_a_site_shows_and_gives_the_last_of_it_back(server: Server) -> None:
    site = server.site().connect()
    assert site.accepted[0].witness is None
    _answer(server, site, LedgerWitness(4, "aa" * 32))
    _answer(server, site, LedgerWitness(5, "bb" * 32))
    _answer(server, site, LedgerWitness(4, "aa" * 32))
    _answer(server, site, None)

    site.stop.set()
    wait_until(lambda: not server.board.nodes(), 20)
    again = server.site().connect()
    assert again.accepted[0].witness == LedgerWitness(5, "bb" * 32)


def test_a_site_that_shows_another_ledger_is_put_out_and_the_others_go_on(server: Server) -> None:
    forked, honest = server.site("forked").connect(), server.site("honest").connect()
    _answer(server, forked, LedgerWitness(4, "aa" * 32))

    with pytest.raises(FedftError, match="FEDFT-8211"):
        _answer(server, forked, LedgerWitness(4, "bb" * 32))
    _answer(server, honest, LedgerWitness(4, "bb" * 32))

    wait_until(lambda: "FEDFT-8211" in forked.errors, 10)
    assert ("forked", "FEDFT-8211") in {(i["member"], i["code"]) for i in server.registry.incidents()}
    kept = list((server.folder / "inbox" / str(forked.node)).iterdir())
    assert len(kept) == 1


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize("put_back", [False, True])
def test_a_daemon_ends_whose_ledger_lacks_what_the_server_has_seen(server: Server, put_back: bool) -> None:
    path = _site(server)
    path.write_text(path.read_text() + '[privacy]\nledger = "ledger.sqlite"\ndataset = "notes"\n')
    place = load_site(path).ledger
    assert place is not None
    place.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.create(place)
    ledger.enrol("notes", "ab" * 32, 500)
    files = (place, place.with_name(place.name + ".head"))
    old = [file.read_bytes() for file in files]
    event = PrivacyEvent(2.0, 0.1)
    shown = ledger.charge("notes", event, Budget(8.0, 1e-5), run="r", round_number=1).witness
    assert shown is not None
    server.registry.witness("site", shown)
    for file, content in zip(files, old, strict=True):
        if put_back:
            file.write_bytes(content)
    daemon = Daemon(path)
    alarm = threading.Timer(3.0, daemon.stop)
    alarm.start()

    with pytest.raises(FedftError, match="FEDFT-8211") if put_back else contextlib.nullcontext():
        daemon.run()

    alarm.cancel()
