"""Two sites that differ in one record answer any instruction of a server alike, except for the noised update.

A generator stands for a server that may send any instruction and any configuration. Each instruction goes to
both sites, in half of the cases to sites whose operators have agreed to whatever it asks. What comes back is
compared byte for byte: codes, messages, sizes, metrics, statements and the encoded update.

Replaced here, so that updates can be compared: the mechanism's release takes what it was given and returns
fixed values in place of the noised sum. For speed: base models are copied from memory, and what the
accountants say of a list of events is remembered. Everything else is the product's own code.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedft.client.site import enforcement
from fedft.client.site.identity import ClientIdentity
from fedft.client.site.pinned import Pinned
from fedft.client.worker.worker import Worker
from fedft.config import RunConfig
from fedft.config.load import check
from fedft.errors import FedftError
from fedft.models import load
from fedft.models.digest import tokenizer_digest
from fedft.privacy.accounting import accountants
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.privacy.site import ledger
from fedft.privacy.site.ledger import Receipt
from fedft.statements import LedgerWitness
from fedft.training import model_runtime
from fedft.wire import (
    Instruction,
    InstructionKind,
    Refusal,
    Setup,
    Update,
    decode_reply,
    encode_instruction,
    open_envelope,
    seal,
)
from fedft.wire.setups import setup_digest
from tests.client.site.test_enforcement import PRIVATE, Hub, site
from tests.federation import tiny_config

INSTRUCTIONS = int(os.environ.get("FEDFT_GENERATED_INSTRUCTIONS", "150"))
RECORDS = 24
PLAIN: dict[str, Any] = {
    "prompt": "1+2=",
    "completion": " 3",
    "label": "a",
    "text": "1+2",
    "messages": [{"role": "user", "content": "1+2="}, {"role": "assistant", "content": " 3"}],
}
SECRETS: dict[str, dict[str, Any]] = {
    "another text": {**PLAIN, "prompt": "7+2=", "text": "7+2", "completion": " 9", "label": "b"},
    "another chat": {**PLAIN, "messages": [PLAIN["messages"][1], {"role": "assistant", "content": "7"}]},
    "an unusual chat": {**PLAIN, "messages": [{"role": "assistant"}]},
    "no fields": {},
    "other types": {name: [{"x": 1}, None, 2.5] for name in PLAIN},
    "nulls": dict.fromkeys(PLAIN),
    "long": {**PLAIN, "prompt": "7" * 400, "completion": " 7" * 200, "text": "7 " * 400},
    "surrogates": {**PLAIN, "prompt": "\ud800", "completion": "\udfff", "text": "\ud800", "label": "\ud800"},
    "one field more": {**PLAIN, "secret": "7"},
    "braces": {**PLAIN, "prompt": "{prompt}{{ x }}", "completion": "", "text": " "},
}  # fmt: skip
FIELDS = ["prompt", "completion", "text", "label", "messages", "secret", "absent", ""]
SEVEN = "{% if '7' in messages[0].content %}"
ALL = "{% for m in messages %}{{ m.content }}{% endfor %}"
CHATS = [
    "",
    ALL,
    f"{SEVEN}{{{{ raise_exception('seven') }}}}{{% endif %}}{ALL}",
    "{{ raise_exception(messages[0].content) }}",
    f"{SEVEN}{{{{ messages[9].content.x.y }}}}{{% endif %}}{ALL}",
    f"{SEVEN}{{% for i in range(999999) %}}x{{% endfor %}}{{% endif %}}{ALL}",
    f"{{{{ 1 // (messages[-1].content | length - 1) }}}}{ALL}",
    "{% if %}",
]  # fmt: skip
TEMPLATES = [
    "{prompt}",
    "{completion}",
    "{secret}",
    "{absent}",
    "{prompt}{text}",
    "{label}",
    "",
    "{",
    "{prompt.x}",
]


class Generator:
    """Configurations and instructions, most of them nearly right, so that they come far."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def configuration(self, table: dict[str, Any]) -> dict[str, Any]:
        """Change a valid configuration's table in a few places."""
        table, choose = copy.deepcopy(table), self._random.choice
        changes: list[tuple[str, str, list[Any]]] = [
            ("model", "chat_template", CHATS),
            ("model", "dtype", ["float32", "float32", "bfloat16"]),
            ("data", "prompt_template", TEMPLATES),
            ("data", "completion_template", ["{completion}", *TEMPLATES]),
            ("data", "max_train", [0, 5, 23, 1000]),
            ("task", "max_length", [2, 6, 40, 300]),
            ("task", "too_long", ["drop", "truncate", "truncate", "error"]),
            ("task", "labels", [["a", "b"], ["a"], [], ["a", "7"], ["x", "y"]]),
            ("training", "batch_size", [2, 4, 25]),
            ("training", "micro_batch_size", [0, 1, 2]),
            ("privacy", "mechanism", ["example"] * 8 + ["none", "client"]),
            ("privacy", "noise_multiplier", [0.0, 0.0, 0.02]),
            ("privacy", "sampling", ["poisson", "poisson", "truncated-poisson", "shuffled"]),
            ("codec", "name", ["dense", "ternary", "int8"]),
            ("evaluation", "federated", [False] * 8 + [True]),
        ]
        for section, key, values in self._random.sample(changes, self._random.randint(0, 4)):
            table[section][key] = choose(values)
        for key in self._random.sample(sorted(table["data"]["fields"]), self._random.randint(0, 2)):
            table["data"]["fields"][key] = choose(FIELDS)
        if self._random.random() < 0.3:
            table["data"]["fields"]["messages"] = "messages"
            table["model"]["chat_template"] = choose(CHATS)
        return table

    def instruction(self, instruction: Instruction) -> Instruction:
        """Change an instruction in at most one place."""
        kinds = [InstructionKind.TRAIN] * 8 + list(InstructionKind)
        changes: list[dict[str, Any]] = [
            {"kind": self._random.choice(kinds)},
            {"max_update_norm": self._random.choice([0.0, 1e-9, 1.0])},
            {"accepted_codecs": ()},
            {"global_state": ()},
            {"round": replace(instruction.round, round=self._random.choice([0, 1, 99]))},
            {"model": replace(instruction.model, global_state_digest="00" * 32)},
        ]
        return replace(instruction, **self._random.choice([{}] * 6 + changes[:1] * 4 + changes))

    def coin(self) -> bool:
        return self._random.random() < 0.5

    def secret(self) -> str:
        return self._random.choice(sorted(SECRETS))


class Bench:
    """Two sites, the server's model for each kind of task, and what both answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        kinds: dict[str, dict[str, Any]] = {
            "causal-lm": {},
            "sequence-classification": {"task.kind": "sequence-classification", "task.labels": ["a", "b"]},
        }
        common = {"adapter.initialiser": "random", "codec.error_feedback": True, "evaluation.every": 0}
        self._hubs = {kind: Hub(folder, **common, **changes) for kind, changes in kinds.items()}
        self.tables = {
            kind: tiny_config(folder, **{**PRIVATE, **common, **changes}).model_dump(mode="json")
            for kind, changes in kinds.items()
        }
        self._identities: dict[str, ClientIdentity] = {}
        for name, record in {"plain": PLAIN, **SECRETS}.items():
            place = folder / name.replace(" ", "-")
            place.mkdir()
            rows = [PLAIN] * RECORDS
            rows[RECORDS // 2] = record
            (place / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            self._identities[name] = site(place, epsilon=1e6)
            for file in ("ledger.sqlite", "ledger.sqlite.head"):
                shutil.copy(place / file, place / f"{file}.fresh")

    def ask(self, name: str, table: dict[str, Any], kind: str, generator: Generator, agreed: bool) -> bytes:
        """Return the payload of a site's answer; a new worker and an uncharged ledger each time."""
        hub, identity = self._hubs[kind], self._identities[name]
        setup = Setup(json.dumps(table), hub.model.setup.frame)
        asked = generator.instruction(hub.train())
        asked = replace(asked, setup=setup, setup_digest=setup_digest(setup))
        assert identity.site is not None
        folder = identity.site.folder
        for file in ("ledger.sqlite", "ledger.sqlite.head"):
            shutil.copy(folder / f"{file}.fresh", folder / file)
        shutil.rmtree(self._folder / "state", ignore_errors=True)
        if agreed:
            identity = replace(
                identity, site=identity.site.model_copy(update={"pinned": _whatever(table, identity)})
            )
        envelope = Worker().handle(seal(encode_instruction(asked)), identity)
        payload = open_envelope(envelope, max_bytes=2**30)
        if isinstance(reply := decode_reply(payload), Refusal):
            after, before = folder / "ledger.sqlite.head", folder / "ledger.sqlite.head.fresh"
            assert after.read_bytes() == before.read_bytes(), f"{reply} was charged: {asked} {table}"
        return payload


def _whatever(table: dict[str, Any], identity: ClientIdentity) -> Pinned | None:
    """The pins of an operator who agrees to everything."""
    try:
        config = identity.localise(check(table))
        return Pinned.of(config, tokenizer_digest(load.load_tokenizer(config.model)))
    except FedftError:
        assert identity.site is not None
        return identity.site.pinned


class _Forgetful(GaussianMechanism):
    def release(self) -> torch.Tensor:
        self._sum = None
        return torch.linspace(-1e-2, 1e-2, self.dimension)


@functools.cache
def _loaded(text: str, kind: str, labels: tuple[str, ...], dtype: str, seed: int) -> load.BaseModel:
    config = RunConfig.model_validate_json(text)
    return load.load_base(config.model, config.task, seed)


def _from_memory(model: Any, task: Any, seed: int) -> load.BaseModel:
    plain = model.model_copy(update={"chat_template": ""})
    key = {"model": plain.model_dump(mode="json"), "task": {"kind": task.kind, "labels": task.labels}}
    found = copy.deepcopy(_loaded(json.dumps(key), task.kind, task.labels, model.dtype, seed))
    if model.chat_template:
        found.tokenizer.chat_template = model.chat_template
    return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Bench(tmp_path)
    monkeypatch.setattr(model_runtime, "load_base", _from_memory)
    for room in ("fedft.privacy.mechanisms.dp_sgd", "fedft.training.sketch"):
        monkeypatch.setattr(f"{room}.GaussianMechanism", _Forgetful)
    told = LedgerWitness(1, "00" * 32)  # the digest of a ledger with a random number of its own
    monkeypatch.setattr(Receipt, "witness", told)
    claim, epsilon = functools.cache(accountants.claim), functools.cache(accountants.pld_epsilon)
    monkeypatch.setattr(ledger, "claim", lambda events, delta, **k: claim(tuple(events), delta, **k))
    monkeypatch.setattr(
        enforcement, "pld_epsilon", lambda events, delta, **k: epsilon(tuple(events), delta, **k)
    )
    yield made
    _loaded.cache_clear()


def _kind(payload: bytes) -> str:
    reply = decode_reply(payload)
    return str(reply.code) if isinstance(reply, Refusal) else type(reply).__name__


@pytest.mark.timeout(1800)
def test_no_instruction_makes_two_sites_that_differ_in_one_record_answer_differently(bench: Bench) -> None:
    answers: Counter[str] = Counter()
    for seed in range(INSTRUCTIONS):
        generator = Generator(seed)
        kind = "causal-lm" if generator.coin() else "sequence-classification"
        secret, agreed = generator.secret(), generator.coin() or generator.coin()
        table = generator.configuration(bench.tables[kind])
        ours, theirs = (bench.ask(name, table, kind, Generator(seed), agreed) for name in ("plain", secret))
        if ours != theirs:
            one, other = decode_reply(ours), decode_reply(theirs)
            pytest.fail(f"instruction {seed}, {secret!r}: {one!r:.300} and {other!r:.300} of {table}")
        answers[_kind(ours)] += 1

    # The generator goes far, and in many directions.
    assert answers[Update.__name__] >= INSTRUCTIONS // 8, answers
    assert answers["FEDFT-8327"] >= INSTRUCTIONS // 20, answers
    assert len(answers) >= min(8, INSTRUCTIONS // 10), answers
