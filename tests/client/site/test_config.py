from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from fedft.client.site.config import load_site
from fedft.client.site.identity import ClientIdentity
from fedft.client.site.join import join_site
from fedft.config.load import check
from fedft.errors import FedftError
from fedft.identity.documents import ServerBundle, read_request
from fedft.identity.keys import parse_public_signing_key, public_pem
from fedft.privacy.accounting.events import Budget
from fedft.privacy.site.policy import load_policy
from tests.transport.conftest import Server, server

__all__ = ["server"]


def _write(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    table = {"name": "a", "server": {"address": "host:1"}, "data": {"train": "own.jsonl"}, **changes}
    (folder / "site.toml").write_text(tomli_w.dumps(table))
    return folder / "site.toml"


def test_a_sites_own_data_and_model_replace_what_the_run_names_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("{}")
    data = {"train": "own.jsonl", "format": "jsonl", "fields": {"prompt": "question"}}
    identity = ClientIdentity.of({"site": str(_write(tmp_path, data=data, model={"source": "/models/base"}))})
    run = check(
        {
            "model": {"source": "elsewhere", "revision": "abc"},
            "data": {
                "train": "/etc/passwd",
                "test": "test.jsonl",
                "public": "public.jsonl",
                "partition": {"kind": "field", "field": "x", "clients": 5},
            },
            "seed": 3,
        }
    )

    local = identity.localise(run)

    assert (identity.client, identity.partition, identity.partitions) == ("a", 0, 1)
    assert local.data.train == str(tmp_path / "own.jsonl")
    assert local.data.fields.prompt == "question"
    assert (local.data.partition.kind, local.data.partition.clients) == ("iid", 1)
    assert (local.model.source, local.model.revision) == ("/models/base", "abc")
    same = {"data": local.data, "model": local.model}
    assert local == run.model_copy(update=same)


def test_a_part_of_the_runs_records_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    identity = ClientIdentity.of({"site": str(_write(tmp_path, data={"partition": 2, "partitions": 5}))})
    run = check({"data": {"partition": {"clients": 5}}})

    assert (identity.client, identity.partition, identity.partitions) == ("a", 2, 5)
    assert identity.localise(run) == run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {}}, "give either train"),
        ({"data": {"train": "x", "partition": 0, "partitions": 2}}, "give either train"),
        ({"data": {"partition": 2, "partitions": 2}}, "partition 2 of 2"),
        ({"name": "../x"}, "name"),
        ({"server": {"address": "host"}, "typo": 1}, r"server.address(?s:.*)typo"),
    ],
)
def test_mistakes_are_all_listed(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(FedftError, match=f"FEDFT-7050(?s:.*){words}"):
        load_site(_write(tmp_path, **changes))


def test_joining_with_a_budget_writes_a_policy_that_can_be_used(server: Server, tmp_path: Path) -> None:
    bundle = server.bundle
    join_site(bundle, tmp_path / "a", "a", partition="0/3", budget=(4.0, 1e-6))
    site = load_site(tmp_path / "a" / "site.toml")
    policy = load_policy(site.path(site.privacy.policy))
    assert policy.budget(site.privacy.dataset) == Budget(4.0, 1e-6)
    assert policy.datasets[site.privacy.dataset].private
    assert policy.server.identities == (site.server.address.rpartition(":")[0],)
    for budget in [(-1.0, 1e-6), (float("inf"), 1e-6), (4.0, 1.0)]:
        with pytest.raises(FedftError, match="FEDFT-7050"):
            join_site(bundle, tmp_path / "b", "b", partition="0/3", budget=budget)
        assert not (tmp_path / "b").exists()


def test_joining_makes_keys_of_its_own_and_a_request_that_proves_them(server: Server, tmp_path: Path) -> None:
    requests = [
        join_site(server.bundle, tmp_path / name, "site", train="own.jsonl") for name in ("one", "two")
    ]
    one, two = (read_request(path.read_text()) for path in requests)
    assert public_pem(one.signing_key) != public_pem(two.signing_key)
    assert one.tls_request.public_key() != two.tls_request.public_key()
    for name in ("tls.key", "signing.key"):
        assert (tmp_path / "one" / name).stat().st_mode & 0o077 == 0
        assert "PRIVATE" not in requests[0].read_text()
    site = load_site(tmp_path / "one" / "site.toml")
    key = parse_public_signing_key(site.path(site.server.signing_key).read_bytes())
    assert key == server.signing_key.public_key()
    with pytest.raises(FedftError, match="FEDFT-7051"):
        join_site(server.bundle, tmp_path / "one", "site", train="own.jsonl")


def test_a_request_that_was_altered_is_not_sound(server: Server, tmp_path: Path) -> None:
    text = join_site(server.bundle, tmp_path / "a", "honest", train="x").read_text()
    other = join_site(server.bundle, tmp_path / "b", "honest", train="x").read_text()
    import json

    for field in ("name", "tls_request", "signing_key"):
        values = json.loads(text)
        values[field] = "mallory" if field == "name" else json.loads(other)[field]
        with pytest.raises(FedftError, match="FEDFT-7056"):
            read_request(json.dumps(values))
    with pytest.raises(FedftError, match="FEDFT-7056"):
        ServerBundle.from_json(text)
