"""Pinning the keys that the other sites sign with."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

import tomli_w

from fedft.client.site.config import load_site
from fedft.files import write_atomically
from fedft.identity.documents import read_request


def read_peers(requests: Iterable[Path]) -> dict[str, str]:
    """Read other sites' enrolment requests: their raw public signing keys in hex, by name.

    A request proves that its sender has the key; that the sender is who it says is for people to settle.

    Raises:
        FedftError: FEDFT-7056 for a request that is not sound.

    """
    found = map(read_request, (path.read_text("utf-8") for path in requests))
    return {request.name: request.signing_key.public_bytes_raw().hex() for request in found}


def pin_peers(path: Path, peers: dict[str, str]) -> None:
    """Write peers into a site's configuration beside those that it has; one of the same name is replaced."""
    site = load_site(path)
    table = tomllib.loads(path.read_text("utf-8"))
    known = {**site.secagg.peers, **{name: key for name, key in peers.items() if name != site.name}}
    table["secagg"] = {**table.get("secagg", {}), "peers": known}
    write_atomically(path, tomli_w.dumps(table).encode())
    load_site(path)
