"""What a client agrees to, answers and refuses in private rounds, through the worker that holds the model."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import fedft.client.worker.private_round as private_round
import fedft.client.worker.training as training
from fedft.client.site.config import SiteConfig
from fedft.client.site.identity import ClientIdentity
from fedft.client.site.pinning import propose
from fedft.client.worker.worker import Worker
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.coordinator.handshake import HandshakePhase
from fedft.coordinator.instructions import InstructionBuilder
from fedft.coordinator.server_model import ServerModel
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import COARSE, pld_epsilon
from fedft.privacy.site.disclosure import PUBLIC, check_outgoing
from fedft.privacy.site.ledger import Ledger
from fedft.statements import LedgerWitness
from fedft.training.client_records import ClientRecords
from fedft.training.model_runtime import ModelRuntime
from fedft.wire import (
    Hello,
    Instruction,
    InstructionKind,
    Refusal,
    Reply,
    Setup,
    Update,
    decode_instruction,
    decode_reply,
    encode_instruction,
    seal,
)
from fedft.wire import open_envelope as open_
from fedft.wire.setups import setup_digest
from tests.federation import sums, tiny_config

PRIVATE = {
    "privacy.mechanism": "example",
    "privacy.epsilon": 5.0,
    "privacy.delta": 1e-3,
    "rounds.weighting": "uniform",
    "codec.error_feedback": False,
}
POLICY = """
[datasets.notes]
epsilon = {epsilon}
delta = {delta}
private = {private}
[models]
bases = {bases}
frames = {frames}
initialisers = {initialisers}
[messages]
codecs = {codecs}
metrics = []
secure_aggregation = {secure_aggregation}
[server]
identities = {identities}
"""
WIDE: dict[str, Any] = {
    "epsilon": 10.0,
    "delta": 1e-3,
    "private": True,
    "bases": ["*"],
    "frames": ["*"],
    "initialisers": ["*"],
    "codecs": ["*"],
    "secure_aggregation": False,
    "identities": ["hub.example.org"],
}


class Hub:
    """A server of one run, as far as a client sees it, and a worker to talk to."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        self.config: RunConfig = tiny_config(folder, **{**PRIVATE, **overrides})
        runtime = ModelRuntime(self.config)
        frames = runtime.build_frames()
        runtime.attach(frames)
        shipped = b"" if runtime.frame_is_reproducible else frames.to_bytes()
        setup = Setup(to_json(self.config), shipped)
        self.model = ServerModel(
            runtime.base_digest, frames.digest(), frames, setup, runtime.state(), runtime
        )
        self.book = InstructionBuilder("run-1", self.config, self.model)
        self.worker = Worker()

    def train(self, number: int = 1) -> Instruction:
        return replace(self.book.train(number, self.model.initial_state), setup=self.model.setup)

    def hello(self) -> Instruction:
        phase = HandshakePhase(
            "run-1", to_json(self.config), self.book.reference(), [1], codecs={}, wanted=1, deadline=60.0
        )
        (request,) = phase.request()
        return decode_instruction(open_(request.envelope, max_bytes=2**30))

    def ask(self, instruction: Instruction, identity: ClientIdentity) -> Reply:
        return decode_reply(
            open_(self.worker.handle(seal(encode_instruction(instruction)), identity), max_bytes=2**30)
        )

    def refused(self, instruction: Instruction, identity: ClientIdentity) -> Refusal:
        """Ask what the client refuses."""
        reply = self.ask(instruction, identity)
        assert isinstance(reply, Refusal)
        return reply


def site(
    folder: Path,
    *,
    ledger: bool = True,
    policy: bool = True,
    enrol: bool = True,
    pinned: bool = True,
    run: RunConfig | None = None,
    **rules: Any,
) -> ClientIdentity:
    """A site with 60 records of its own, a policy, pins, and a ledger that is bound to its records."""
    folder.mkdir(exist_ok=True)
    if not (folder / "own.jsonl").exists():
        sums(folder / "own.jsonl", 60, 500)
    values = {key: json.dumps(value) for key, value in {**WIDE, **rules}.items()}
    (folder / "policy.toml").write_text(POLICY.format(**values))
    table = {
        "name": "site-a",
        "server": {"address": "hub.example.org:7443"},
        "data": {"train": "own.jsonl"},
        "privacy": {
            "policy": "policy.toml" if policy else "",
            "ledger": str(folder.absolute() / "ledger.sqlite") if ledger else "",
            "dataset": "notes",
        },
        "folder": folder,
    }
    configured = SiteConfig.model_validate(table)
    agreed = propose(configured, run or tiny_config(folder.parent, **PRIVATE)).pinned if pinned else None
    pinning = configured.model_copy(update={"pinned": agreed})
    identity = ClientIdentity(0, 1, pinning, server="hub.example.org")
    if ledger and enrol and not (folder / "ledger.sqlite").exists():
        Ledger.create(folder / "ledger.sqlite").enrol("notes", *_fingerprint(identity, folder))
    return identity


def _fingerprint(identity: ClientIdentity, folder: Path) -> tuple[str, int]:
    config = identity.localise(tiny_config(folder.parent, **PRIVATE))
    return ClientRecords(config).fingerprint(0)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Hub(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path]]:
    """A hub whose model stays loaded, and its folder, for tests that only refuse."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "state"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield Hub(folder), folder


def ledger_of(tmp_path: Path, client: str = "client-000") -> Ledger:
    return Ledger(tmp_path / "state" / "fedft" / "ledgers" / "run-1" / client / "ledger.sqlite")


def charges(ledger: Ledger) -> list[dict[str, Any]]:
    return [entry.body for entry in ledger.entries() if entry.body["kind"] == "charge"]


# -- a round ---------------------------------------------------------------------------------------------


def test_an_update_says_what_was_charged_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    update = hub.ask(hub.train(), ClientIdentity(0, 3))

    assert isinstance(update, Update)
    assert update.num_examples == 0
    assert set(update.metrics) <= PUBLIC
    statement = update.privacy
    assert statement is not None
    events = ledger_of(tmp_path).events_of_run("train", "run-1")
    assert statement.epsilon == pld_epsilon(events, 1e-3, interval=COARSE)
    assert (statement.steps, statement.sample_rate) == (2, 4 / 30)
    last = ledger_of(tmp_path).entries()[-1]
    assert statement.ledger == LedgerWitness(last.sequence, last.digest)
    assert events[0].noise_multiplier == statement.noise_multiplier


def test_a_repeated_instruction_is_answered_again_and_charged_once(hub: Hub, tmp_path: Path) -> None:
    first, again = hub.ask(hub.train(), ClientIdentity(0, 3)), hub.ask(hub.train(), ClientIdentity(0, 3))

    assert first == again
    assert len(charges(ledger_of(tmp_path))) == 1


def test_another_instruction_for_the_same_round_is_charged_again(hub: Hub, tmp_path: Path) -> None:
    first = hub.ask(hub.train(), ClientIdentity(0, 3))
    other = hub.ask(replace(hub.train(), codec_seed=b"other"), ClientIdentity(0, 3))

    assert first != other
    assert len(charges(ledger_of(tmp_path))) == 2


def test_two_clients_have_their_own_ledgers_and_noise(hub: Hub, tmp_path: Path) -> None:
    updates = [hub.ask(hub.train(), ClientIdentity(client, 3)) for client in (0, 1)]

    one, other = updates
    assert isinstance(one, Update)
    assert isinstance(other, Update)
    assert one.shards != other.shards
    assert [len(charges(ledger_of(tmp_path, f"client-00{client}"))) for client in (0, 1)] == [1, 1]


def test_the_charge_is_on_disk_before_the_first_batch_is_drawn(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def drawn(_runtime: Any, _client: Any, samples: Callable[[], object], *_a: Any, **_k: Any) -> None:
        samples()
        seen.append(len(charges(ledger_of(tmp_path))))

    monkeypatch.setattr(private_round, "train_client", drawn)
    hub.ask(hub.train(), ClientIdentity(0, 3))

    assert seen == [1]


def test_a_round_that_fails_stays_charged(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(
        _runtime: Any, _client: int, samples: Callable[[], Any], *_arguments: Any, **_named: Any
    ) -> None:
        samples()
        raise ValueError("record 7 says 'my secret'")

    monkeypatch.setattr(private_round, "train_client", fail)
    refusal = hub.ask(hub.train(), ClientIdentity(0, 3))

    assert isinstance(refusal, Refusal)
    assert refusal.code == "FEDFT-8325"
    assert "secret" not in refusal.message
    assert len(charges(ledger_of(tmp_path))) == 1


def test_a_simulation_says_at_its_start_that_records_cannot_be_read_but_not_what_they_hold(
    hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text('{"promt": "my secret"}\n' * 90)
    refusal = hub.ask(hub.hello(), ClientIdentity(0, 3))

    assert isinstance(refusal, Refusal)
    assert refusal.code == "FEDFT-3005"
    assert "promt" not in refusal.message


def test_the_roll_call_does_not_tell_how_many_records_are_of_use(hub: Hub) -> None:
    hello = hub.ask(hub.hello(), ClientIdentity(0, 3))

    assert isinstance(hello, Hello)
    assert hello.num_examples == 0


def test_an_evaluation_of_private_data_is_refused(hub: Hub) -> None:
    instruction = replace(hub.book.evaluate(1, hub.model.initial_state), setup=hub.model.setup)

    assert hub.refused(instruction, ClientIdentity(0, 3)).code == "FEDFT-8321"


def test_a_value_of_private_data_does_not_leave_with_the_update(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        training,
        "check_outgoing",
        lambda report, **terms: check_outgoing({**report, "train_loss": 1.0}, **terms),
    )
    assert hub.refused(hub.train(), ClientIdentity(0, 3)).code == "FEDFT-8321"


def test_a_frame_is_not_computed_from_gradients_here(hub: Hub) -> None:
    setup = replace(hub.model.setup, frame=b"")
    hub.model = replace(hub.model, setup=setup)
    hub.book = replace(hub.book, model=hub.model)

    assert hub.refused(hub.train(), ClientIdentity(0, 3)).code == "FEDFT-8322"


def test_a_sketch_is_made_only_for_a_frame_of_sketches(hub: Hub) -> None:
    instruction = replace(hub.train(), kind=InstructionKind.SKETCH)

    assert hub.refused(instruction, ClientIdentity(0, 3)).code == "FEDFT-8323"


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"privacy.delta": 1 / 30}, "FEDFT-8001"),
        ({"training.batch_size": 31}, "FEDFT-8101"),
        ({"privacy.noise_multiplier": 0.5}, "FEDFT-8005"),
    ],
)
def test_settings_that_cannot_be_true_of_the_data(
    overrides: dict[str, Any], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub = Hub(tmp_path, **overrides)

    assert hub.refused(hub.train(), ClientIdentity(0, 3)).code == code
    assert not (tmp_path / "state" / "fedft" / "ledgers").exists()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data.prompt_template": "{"}, "FEDFT-3020"),
        ({"data.completion_template": "{prompt.x}"}, "FEDFT-3020"),
        ({"data.fields.messages": "messages"}, "FEDFT-3022"),
        ({"training.steps": 10_000, "rounds.total": 10_000}, "FEDFT-8002"),
    ],
)
def test_what_no_record_decides_is_refused_before_it_costs_anything(
    hub: Hub, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    config = tiny_config(tmp_path, **{**PRIVATE, **changes})
    setup = Setup(to_json(config), hub.model.setup.frame)
    book = replace(hub.book, config=config, model=replace(hub.model, setup=setup))
    asked = replace(book.train(1, hub.model.initial_state), setup=setup, setup_digest=setup_digest(setup))

    assert hub.refused(asked, ClientIdentity(0, 3)).code == code
    assert not (tmp_path / "state" / "fedft" / "ledgers").exists()


@pytest.mark.parametrize(
    ("feedback", "room"),
    [(True, "fedft.codecs.error_feedback"), (False, "fedft.client.worker.update_pipeline")],
)
def test_a_code_that_takes_no_update_is_refused_before_it_costs_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedback: bool, room: str
) -> None:
    def fail(*_: Any) -> None:
        raise FedftError(Code.CODEC_EXCEEDS_NORM, "too long")

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(f"{room}.encode_bounded", fail)
    hub = Hub(tmp_path, **{"codec.error_feedback": feedback})

    assert hub.refused(hub.train(), ClientIdentity(0, 3)).code == "FEDFT-4023"
    assert not (tmp_path / "state" / "fedft" / "ledgers").exists()


def test_a_round_whose_answer_no_codec_could_carry_is_no_instruction(hub: Hub, tmp_path: Path) -> None:
    refusal = hub.refused(replace(hub.train(), accepted_codecs=()), ClientIdentity(0, 3))

    assert refusal.code == "FEDFT-4007"
    assert not (tmp_path / "state" / "fedft" / "ledgers").exists()


def test_what_a_round_without_noise_left_out_is_not_added_to_a_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    feedback = {"codec.error_feedback": True}
    plain, private = Hub(tmp_path, **feedback, **{"privacy.mechanism": "none"}), Hub(tmp_path, **feedback)
    for hub in (plain, private):  # a server that gives both runs one name
        assert isinstance(hub.ask(hub.train(), ClientIdentity(0, 3)), Update)

    kept = {path.name for path in (tmp_path / "state" / "fedft" / "residuals" / "run-1").iterdir()}
    assert kept == {"client-000.safetensors", "client-000.private.safetensors"}


# -- a site's policy -------------------------------------------------------------------------------------


def test_a_site_takes_part_within_its_policy(hub: Hub, tmp_path: Path) -> None:
    identity = site(tmp_path / "site")
    update = hub.ask(hub.train(), identity)

    assert isinstance(update, Update)
    assert update.privacy is not None
    assert update.privacy.sample_rate == 4 / 60
    assert len(charges(Ledger(tmp_path / "site" / "ledger.sqlite"))) == 1


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ({"epsilon": 4.9}, "FEDFT-8303"),
        ({"delta": 9e-4}, "FEDFT-8304"),
        ({"bases": ["00"]}, "FEDFT-8305"),
        ({"frames": ["00"]}, "FEDFT-8306"),
        ({"initialisers": ["random"]}, "FEDFT-8307"),
        ({"codecs": ["dense"]}, "FEDFT-8308"),
        ({"secure_aggregation": True}, "FEDFT-8309"),
        ({"identities": ["other.example.org"]}, "FEDFT-8311"),
        ({"epsilon": 4.9, "codecs": []}, "FEDFT-8300"),
    ],
)
@pytest.mark.parametrize("kind", ["hello", "train"])
def test_a_violation_is_refused_at_the_roll_call_and_at_every_round(
    shared: tuple[Hub, Path], rules: dict[str, Any], code: str, kind: str
) -> None:
    hub, folder = shared
    identity = site(folder / "site", **rules)
    refusal = hub.ask(getattr(hub, kind)(), identity)

    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert not charges(Ledger(folder / "site" / "ledger.sqlite"))


def test_the_codec_that_counts_is_the_one_that_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    identity = site(tmp_path / "site", codecs=["ternary"])
    dense = Hub(tmp_path, **{"codec.name": "dense"}).train().accepted_codecs

    assert hub.refused(replace(hub.train(), accepted_codecs=dense), identity).code == "FEDFT-8308"


@pytest.mark.parametrize("mechanism", ["none", "client"])
def test_data_that_may_only_be_used_privately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub = Hub(tmp_path, **{"privacy.mechanism": mechanism})

    assert hub.refused(hub.hello(), site(tmp_path / "site")).code == "FEDFT-8302"


@pytest.mark.parametrize(
    ("identities", "allowed"), [(["hub.example.org"], False), (["*"], True), (["flower"], True)]
)
def test_where_no_signature_was_verified_only_a_policy_that_says_so_lets_a_site_take_part(
    shared: tuple[Hub, Path], identities: list[str], allowed: bool
) -> None:
    """A SuperNode's site.toml names its server itself, which proves nothing about who is at the other end."""
    hub, folder = shared
    configured = site(folder / "site", identities=identities).site
    assert configured is not None
    (folder / "site" / "site.toml").write_text(
        tomli_w.dumps(configured.model_dump(mode="json", exclude_none=True))
    )
    supernode = ClientIdentity.of({"site": str(folder / "site" / "site.toml")})
    reply = hub.ask(hub.hello(), supernode)

    if allowed:
        assert isinstance(reply, Hello)
    else:
        assert isinstance(reply, Refusal)
        assert reply.code == "FEDFT-8311"


def test_metrics_that_the_policy_keeps_do_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub = Hub(tmp_path, **{"privacy.mechanism": "none"})
    update = hub.ask(hub.train(), site(tmp_path / "site", private=False))

    assert isinstance(update, Update)
    assert update.metrics == {}


def test_metrics_that_a_run_cannot_do_without_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub = Hub(tmp_path, **{"privacy.mechanism": "none"})
    instruction = replace(hub.book.evaluate(1, hub.model.initial_state), setup=hub.model.setup)

    assert hub.refused(instruction, site(tmp_path / "site", private=False)).code == "FEDFT-8310"


def test_a_site_without_a_policy_takes_part_in_no_private_run(hub: Hub, tmp_path: Path) -> None:
    assert hub.refused(hub.train(), site(tmp_path / "site", policy=False)).code == "FEDFT-8313"


def test_a_data_set_that_the_policy_does_not_name(hub: Hub, tmp_path: Path) -> None:
    identity = site(tmp_path / "site")
    assert identity.site is not None
    files = identity.site.privacy.model_copy(update={"dataset": "other"})
    other = replace(identity, site=identity.site.model_copy(update={"privacy": files}))

    assert hub.refused(hub.train(), other).code == "FEDFT-8312"


# -- a site's ledger -------------------------------------------------------------------------------------


def test_a_site_without_a_ledger_is_not_given_one(hub: Hub, tmp_path: Path) -> None:
    assert hub.refused(hub.train(), site(tmp_path / "site", ledger=False)).code == "FEDFT-8201"
    assert hub.refused(hub.train(), site(tmp_path / "gone", enrol=False)).code == "FEDFT-8201"
    assert not (tmp_path / "gone" / "ledger.sqlite").exists()


def test_a_budget_that_is_spent_ends_it(hub: Hub, tmp_path: Path) -> None:
    identity = site(tmp_path / "site", epsilon=5.0)
    replies = [hub.ask(hub.train(number), identity) for number in (1, 2, 3, 4)]

    assert [type(reply).__name__ for reply in replies] == ["Update", "Update", "Update", "Refusal"]
    last = replies[-1]
    assert isinstance(last, Refusal)
    assert last.code == "FEDFT-8207"
    ledger = Ledger(tmp_path / "site" / "ledger.sqlite")
    assert ledger.claim("notes", 1e-3).epsilon <= 5.0


def test_runs_share_the_budget(hub: Hub, tmp_path: Path) -> None:
    identity = site(tmp_path / "site", epsilon=5.0)
    for number in (1, 2, 3):
        assert isinstance(hub.ask(hub.train(number), identity), Update)
    hub.book = replace(hub.book, run_id="run-2")

    assert hub.refused(hub.train(), identity).code == "FEDFT-8207"


def _change_data(folder: Path) -> None:
    sums(folder / "own.jsonl", 60, 501)


def _tamper(folder: Path) -> None:
    with sqlite3.connect(folder / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER no_update")
        database.execute("UPDATE entries SET body = replace(body, 'notes', 'other') WHERE sequence = 2")


def _roll_back(folder: Path) -> None:
    with sqlite3.connect(folder / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER no_delete")
        database.execute("DELETE FROM entries WHERE sequence = (SELECT max(sequence) FROM entries)")


@pytest.mark.parametrize(
    ("harm", "code"),
    [(_change_data, "FEDFT-8325"), (_tamper, "FEDFT-8203"), (_roll_back, "FEDFT-8204")],
)
def test_a_ledger_that_is_not_whole_or_not_of_these_data(
    hub: Hub, tmp_path: Path, harm: Callable[[Path], None], code: str
) -> None:
    identity = site(tmp_path / "site")
    assert isinstance(hub.ask(hub.train(), identity), Update)
    harm(tmp_path / "site")
    hub.worker = Worker()  # what a restarted daemon finds

    refusal = hub.ask(hub.train(2), identity)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert "fingerprint" not in refusal.message


def test_what_the_server_chooses_of_the_data_does_not_make_it_another_data_set(
    hub: Hub, tmp_path: Path
) -> None:
    identity = site(tmp_path / "site")
    some = Hub(tmp_path, **{"data.max_train": 40})

    assert isinstance(hub.ask(hub.train(), identity), Update)
    assert some.refused(some.train(), identity).code == "FEDFT-8210"  # not within one run
    some.book = replace(some.book, run_id="run-2")
    update = some.ask(some.train(), identity)
    assert isinstance(update, Update)
    assert update.privacy is not None
    assert update.privacy.sample_rate == 4 / 40
    assert np.isfinite(update.privacy.epsilon)
    assert len(charges(Ledger(tmp_path / "site" / "ledger.sqlite"))) == 2
