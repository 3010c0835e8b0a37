"""A server that chooses how records are read: what is compared, and what a record can no longer do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedft.client.site import enforcement
from fedft.client.site.config import SiteConfig, load_site
from fedft.client.site.identity import ClientIdentity
from fedft.client.site.pinned import Pinned
from fedft.client.site.pinning import pin, propose
from fedft.client.worker.worker import Worker
from fedft.config.load import check
from fedft.errors import FedftError
from fedft.privacy.site.ledger import Ledger
from fedft.wire import Refusal, Reply, Update
from tests.cli.run import fedft
from tests.client.site.test_enforcement import PRIVATE, Hub, charges, site
from tests.federation import tiny_config

QUOTING = "{{ raise_exception(messages[0].content) }}"
RAISES = "{% if '7' in messages[0].content %}{{ raise_exception('seven') }}{% endif %}x"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _ledger(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.sqlite")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"data.prompt_template": "{prompt}{kind}"}, "data.prompt_template"),
        ({"data.completion_template": "{kind}"}, "data.completion_template"),
        ({"data.fields.prompt": "kind"}, "data.fields"),
        ({"data.fields.group": "kind"}, "data.fields"),
        ({"model.chat_template": RAISES}, "model.chat_template"),
        ({"task.labels": ["a", "b"]}, "task.labels"),
    ],
)
@pytest.mark.parametrize("kind", ["hello", "train"])
def test_a_run_that_reads_records_in_another_way_is_refused_before_it_reads_one(
    tmp_path: Path, overrides: dict[str, Any], named: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity, hub = site(tmp_path / "site"), Hub(tmp_path, **overrides)
    monkeypatch.setattr("fedft.training.client_records.load_records", lambda *_a, **_k: pytest.fail("read"))
    refusal = hub.refused(getattr(hub, kind)(), identity)

    assert refusal.code == "FEDFT-8327"
    assert named in refusal.message
    assert not charges(_ledger(tmp_path / "site"))


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    identity, hub = site(tmp_path / "site"), Hub(tmp_path)
    file = tmp_path / "model" / "tokenizer.json"
    rules = json.loads(file.read_text())
    rules["model"]["vocab"]["7"], rules["model"]["vocab"]["8"] = 11, 10
    file.write_text(json.dumps(rules))

    refusal = hub.refused(hub.train(), identity)
    assert refusal.code == "FEDFT-8327"
    assert "tokenizer" in refusal.message


def test_a_site_that_has_agreed_to_nothing_answers_no_private_round(tmp_path: Path) -> None:
    hub = Hub(tmp_path)

    assert hub.refused(hub.hello(), site(tmp_path / "site", pinned=False)).code == "FEDFT-8326"
    assert hub.refused(hub.train(), site(tmp_path / "site", pinned=False)).code == "FEDFT-8326"


CHAT = {
    "data.fields.messages": "messages",
    "model.chat_template": RAISES,
    "adapter.initialiser": "random",
}


def _chats(folder: Path, secret: str) -> None:
    rows = [[{"role": "user", "content": "1+2="}, {"role": "assistant", "content": " 3"}]] * 59
    rows.append([{"role": "user", "content": secret}, {"role": "assistant", "content": " 3"}])
    _write(folder / "own.jsonl", [{"messages": row} for row in rows])


UNREADABLE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no field": lambda row: row.pop("prompt"),
    "null": lambda row: row.update(completion=None),
    "a lone surrogate": lambda row: row.update(prompt="\ud800"),
    "nothing": lambda row: row.clear(),
    "too long": lambda row: row.update(completion=" 7" * 300),
    "blank": lambda row: row.update(prompt=""),
}


@pytest.mark.parametrize("harm", UNREADABLE)
def test_a_record_that_cannot_be_read_gives_no_sample_and_refuses_nothing(tmp_path: Path, harm: str) -> None:
    rows = [{"prompt": "1+2=", "completion": " 3"} for _ in range(60)]
    UNREADABLE[harm](rows[7])
    _write(tmp_path / "site" / "own.jsonl", rows)
    hub = Hub(tmp_path)
    identity = site(tmp_path / "site")

    assert isinstance(hub.ask(hub.train(), identity), Update)
    runtime = hub.worker._runtime
    assert runtime is not None
    assert len(runtime.data.private(0)) == 59


@pytest.mark.parametrize("too_long", ["truncate", "drop", "error"])
def test_no_setting_makes_a_long_record_an_error(tmp_path: Path, too_long: str) -> None:
    rows = [{"prompt": "1+2=", "completion": " 3" * (300 if index == 7 else 1)} for index in range(60)]
    _write(tmp_path / "site" / "own.jsonl", rows)
    hub = Hub(tmp_path)
    # The configuration's own rule against "error" is not what the site relies on.
    task = hub.config.task.model_copy(update={"too_long": too_long})
    identity = site(tmp_path / "site", run=hub.config)
    from fedft.training.model_runtime import ModelRuntime
    from fedft.training.task import make_task

    assert identity.site is not None
    runtime = ModelRuntime(identity.localise(hub.config.model_copy(update={"task": task})))
    runtime.task = make_task(runtime.config, runtime.base.tokenizer)
    assert len(runtime.data.private(0)) == 59 + (too_long == "truncate")


@pytest.mark.parametrize("secret", ["1+1=", "7+1="])
def test_the_template_that_read_a_secret_tells_nothing_even_where_a_site_has_agreed_to_it(
    tmp_path: Path, secret: str
) -> None:
    _chats(tmp_path / "site", secret)
    hub = Hub(tmp_path, **CHAT)
    identity = site(tmp_path / "site", run=hub.config, epsilon=5.0)
    replies: list[Reply] = [hub.ask(hub.train(number), identity) for number in (1, 2, 3, 4)]

    assert [type(reply).__name__ for reply in replies] == ["Update"] * 3 + ["Refusal"]
    last = replies[-1]
    assert isinstance(last, Refusal)
    assert last.code == "FEDFT-8207"  # the ledger is asked first
    assert len(charges(_ledger(tmp_path / "site"))) == 3


def test_a_token_that_the_model_does_not_know_gives_no_sample(tmp_path: Path) -> None:
    site(tmp_path / "site")
    file = tmp_path / "model" / "tokenizer.json"
    rules = json.loads(file.read_text())
    rules["model"]["vocab"]["5"] = 9999  # a question about every record: does it hold a 5?
    file.write_text(json.dumps(rules))
    hub = Hub(tmp_path, **{"adapter.initialiser": "random"})
    identity = site(tmp_path / "site", run=hub.config)

    assert isinstance(hub.ask(hub.train(), identity), Update)


def test_a_length_that_the_model_cannot_take_is_refused_before_the_charge(tmp_path: Path) -> None:
    """A record of such a length would fail, and one that is shorter would not."""
    from fedft.training import private_client
    from fedft.training.model_runtime import ModelRuntime

    identity, hub = site(tmp_path / "site"), Hub(tmp_path)
    runtime = ModelRuntime(identity.localise(hub.config))
    runtime.base.model.forward = _up_to(40, runtime.base.model.forward)
    hub.worker._runtime = runtime
    refusal = hub.refused(hub.train(), identity)

    assert refusal.code == "FEDFT-2007"
    assert not charges(_ledger(tmp_path / "site"))
    assert private_client is not None


def _up_to(length: int, forward: Any) -> Any:
    def limited(*args: Any, **named: Any) -> Any:
        if named["input_ids"].shape[1] > length:
            raise IndexError("index out of range in self")
        return forward(*args, **named)

    return limited


def test_the_ledger_is_charged_before_a_record_is_read(tmp_path: Path) -> None:
    hub, identity = Hub(tmp_path), site(tmp_path / "site")
    (tmp_path / "site" / "own.jsonl").unlink()
    refusal = hub.refused(hub.train(), identity)

    assert (refusal.code, refusal.message) == ("FEDFT-8325", "the reason stays at the site; see its log")
    assert len(charges(_ledger(tmp_path / "site"))) == 1
    assert hub.refused(hub.hello(), identity).code == "FEDFT-8325"
    assert len(charges(_ledger(tmp_path / "site"))) == 1


@pytest.mark.parametrize(
    "error", [MemoryError("x"), ValueError("record 7"), FedftError("FEDFT-8408", "record 7")]
)
def test_whatever_happens_after_the_charge_leaves_as_one_refusal(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, identity = Hub(tmp_path), site(tmp_path / "site")

    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise error

    monkeypatch.setattr("fedft.training.run_data.RunData.private", fail)
    refusal = hub.refused(hub.train(), identity)
    assert (refusal.code, refusal.message) == ("FEDFT-8325", "the reason stays at the site; see its log")


# -- runs that are not private ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        {"task.kind": "sequence-classification", "task.labels": ["x", "y"], "data.fields.text": "prompt",
         "data.fields.label": "completion"},
        {"data.fields.messages": "messages", "model.chat_template": QUOTING},
        {"data.fields.prompt": "absent"},
    ],
)  # fmt: skip
def test_a_deployed_site_never_sends_words_of_its_records(tmp_path: Path, overrides: dict[str, Any]) -> None:
    secret = "the secret word"
    row = {
        "prompt": secret, "completion": secret,
        "messages": [{"role": "user", "content": secret}, {"role": "assistant", "content": secret}],
    }  # fmt: skip
    _write(tmp_path / "site" / "own.jsonl", [row] * 60)
    tiny_config(tmp_path)
    open_ = {
        "privacy.mechanism": "none",
        "rounds.weighting": "examples",
        "evaluation.every": 0,
        "adapter.initialiser": "random",
    }
    hub = Hub(
        tmp_path, **open_, **{k: v for k, v in overrides.items() if "kind" not in k and "labels" not in k}
    )
    config = tiny_config(tmp_path, **{**PRIVATE, **open_, **overrides})
    setup = replace(hub.model.setup, config_json=json.dumps(config.model_dump(mode="json")))
    from fedft.wire.setups import setup_digest

    identity = site(tmp_path / "site", pinned=False, private=False)
    hello = replace(hub.hello(), setup=setup, setup_digest=setup_digest(setup))
    refusal = hub.refused(hello, identity)
    assert refusal.code in ("FEDFT-3005", "FEDFT-3022", "FEDFT-3023", "FEDFT-7010")
    assert secret not in refusal.message


def test_a_site_with_a_part_of_a_runs_records_reads_nothing_that_it_has_not_listed(tmp_path: Path) -> None:
    private = tmp_path / "private.csv"
    private.write_text("prompt,completion\nthe secret,word\n")
    table = {"name": "a", "server": {"address": "h:1"}, "data": {"partition": 0, "partitions": 2}}
    identity = ClientIdentity(0, 2, SiteConfig.model_validate(table))
    listed = SiteConfig.model_validate({**table, "data": {**table["data"], "sources": [str(private)]}})  # type: ignore[dict-item]
    for source in ("/etc/passwd", str(private)):
        needs_none = {"adapter": {"initialiser": "random"}, "evaluation": {"every": 0}}
        run = check({"data": {"train": source, "partition": {"clients": 2}}, **needs_none})
        with pytest.raises(FedftError, match="FEDFT-7059"):
            identity.localise(run)
    assert identity.localise(check({})) == check({})
    assert listed.localise(run) == run
    with pytest.raises(FedftError, match="FEDFT-7059"):
        listed.localise(check({}))


def test_a_deployed_site_builds_no_frame_from_records_that_the_server_names() -> None:
    run = check({"data": {"public": "/home/site/private.csv"}})

    enforcement.refuse_private_frame(run, b"", deployed=False)
    enforcement.refuse_private_frame(run, b"frame", deployed=True)
    with pytest.raises(FedftError, match="FEDFT-8322"):
        enforcement.refuse_private_frame(run, b"", deployed=True)


# -- agreeing --------------------------------------------------------------------------------------------


def test_pins_are_written_shown_and_compared(tmp_path: Path) -> None:
    run = tiny_config(tmp_path, **PRIVATE)
    folder = tmp_path / "a"
    folder.mkdir()
    rows = [{"prompt": "1+2=", "completion": " 3"}] * 5 + [{"prompt": "1"}]
    _write(folder / "own.jsonl", rows)
    (folder / "site.toml").write_text('name = "a"\n[server]\naddress = "h:1"\n[data]\ntrain = "own.jsonl"\n')
    agreement = propose(load_site(folder / "site.toml"), run)
    assert (agreement.records, agreement.samples) == (6, 5)

    asked = fedft("client", "pin", tmp_path / "run.toml", "-c", folder / "site.toml")
    assert asked.exit_code == 1
    assert "data.prompt_template" in asked.output
    assert "5 of 6 records" in asked.output
    assert load_site(folder / "site.toml").pinned is None

    done = fedft("client", "pin", tmp_path / "run.toml", "-c", folder / "site.toml", "--yes")
    assert done.exit_code == 0, done.output
    found = load_site(folder / "site.toml").pinned
    assert found == agreement.pinned
    found.require(agreement.pinned)
    pin(folder / "site.toml", found.model_copy(update={"dtype": "bfloat16"}))
    other = load_site(folder / "site.toml").pinned
    assert isinstance(other, Pinned)
    with pytest.raises(FedftError, match=r"FEDFT-8327.*model\.dtype is 'float32', pinned 'bfloat16'"):
        other.require(found)


def test_a_worker_that_is_made_anew_gives_the_same_tokenizer_digest(tmp_path: Path) -> None:
    hub, identity = Hub(tmp_path), site(tmp_path / "site")
    for _ in range(2):
        hub.worker = Worker()
        assert isinstance(hub.ask(hub.hello(), identity), Reply)
