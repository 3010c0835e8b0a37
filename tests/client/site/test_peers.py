"""Pinning the other sites' keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.client.site.config import load_site
from fedft.errors import FedftError
from fedft.identity.documents import make_request
from fedft.identity.keys import new_tls_key
from tests.cli.run import fedft


def request_of(folder: Path, name: str) -> tuple[Path, str]:
    key = Ed25519PrivateKey.generate()
    path = folder / f"{name}.json"
    path.write_text(make_request(name, new_tls_key(), key))
    return path, key.public_key().public_bytes_raw().hex()


def test_peers_are_shown_asked_about_and_written_beside_the_others(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('name = "a"\n[server]\naddress = "h:1"\n[data]\ntrain = "own.jsonl"\n')
    own, _ = request_of(tmp_path, "a")
    first, first_key = request_of(tmp_path, "b")
    second, second_key = request_of(tmp_path, "c")

    asked = fedft("client", "peers", first, "-c", site)
    assert asked.exit_code == 1
    assert first_key in asked.output
    assert load_site(site).secagg.peers == {}

    assert fedft("client", "peers", first, own, "-c", site, "--yes").exit_code == 0
    assert fedft("client", "peers", second, "-c", site, "--yes").exit_code == 0
    assert load_site(site).secagg.peers == {"b": first_key, "c": second_key}

    renewed, renewed_key = request_of(tmp_path, "b")
    assert fedft("client", "peers", renewed, "-c", site, "--yes").exit_code == 0
    assert load_site(site).secagg.peers["b"] == renewed_key


def test_a_request_that_another_has_signed_is_no_peer(tmp_path: Path) -> None:
    path, _ = request_of(tmp_path, "b")
    path.write_text(path.read_text().replace('"name": "b"', '"name": "c"'))
    done = fedft("client", "peers", path, "-c", tmp_path / "site.toml", "--yes")
    assert done.exit_code != 0
    assert "FEDFT-7056" in done.output


@pytest.mark.parametrize("key", ["ab" * 31, "AB" * 32, "zz" * 32, "ab" * 33])
def test_a_key_that_is_none_is_a_mistake_in_the_file(tmp_path: Path, key: str) -> None:
    site = tmp_path / "site.toml"
    table = f'name = "a"\n[server]\naddress = "h:1"\n[data]\ntrain = "o"\n[secagg.peers]\nb = "{key}"\n'
    site.write_text(table)
    with pytest.raises(FedftError, match=r"FEDFT-7050 .*\n.*secagg\.peers\.b"):
        load_site(site)
