"""Making a site's folder."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any

import tomli_w

from fedft.client.site.config import load_site
from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.identity.documents import ServerBundle
from fedft.identity.names import checked_member_name
from fedft.identity.site_files import make_identity
from fedft.privacy.site.policy import ANY

_DATASET = "train"


def join_site(
    bundle: Path,
    folder: Path,
    name: str,
    *,
    train: str = "",
    partition: str = "",
    model: str = "",
    budget: tuple[float, float] | None = None,
    run: RunConfig | None = None,
) -> Path:
    """Make keys, an enrolment request and ``site.toml`` in a new folder; return the request's path.

    With a run, a site that has a part of its records may read them; how records are read is pinned
    afterwards (`fedft.client.site.pinning`). With a budget (ε, δ) there is a ``policy.toml`` too: private
    runs of this server alone, within the budget.

    Raises:
        FedftError: FEDFT-7050 when data or partition are not usable, FEDFT-7051 when the folder is not
            empty, FEDFT-7056 when the bundle or the name is none.

    """
    server = ServerBundle.from_json(bundle.read_text("utf-8"))
    checked_member_name(name)
    table: dict[str, Any] = {
        "name": name,
        "server": {"address": server.link_address},
        "data": _data(train, partition, run),
    }
    if model:
        table["model"] = {"source": _absolute(model)}
    if budget is not None:
        table["privacy"] = {"policy": "policy.toml", "ledger": "ledger.sqlite", "dataset": _DATASET}
    policy = None if budget is None else _policy(server, *budget)
    request = make_identity(folder, name, server)
    if policy is not None:
        write_atomically(folder / "policy.toml", tomli_w.dumps(policy).encode())
    write_atomically(folder / "site.toml", tomli_w.dumps(table).encode())
    load_site(folder / "site.toml")
    return request


def _policy(server: ServerBundle, epsilon: float, delta: float) -> dict[str, Any]:
    if not (0 < epsilon < inf and 0 < delta < 1):
        raise FedftError(
            Code.SITE_SETTINGS_INVALID,
            f"epsilon {epsilon:g} and delta {delta:g} are no budget",
            hint="epsilon is above 0; delta is below one over the number of records",
        )
    return {
        "datasets": {_DATASET: {"epsilon": epsilon, "delta": delta, "private": True}},
        "models": {"bases": [ANY], "frames": [ANY], "initialisers": [ANY]},
        "messages": {"codecs": [ANY], "metrics": [], "secure_aggregation": False},
        "server": {"identities": [server.link_address.rpartition(":")[0]]},
    }


def _data(train: str, partition: str, run: RunConfig | None) -> dict[str, Any]:
    match = re.fullmatch(r"(\d+)/(\d+)", partition)
    if bool(train) == bool(partition) or (partition and not match):
        raise FedftError(
            Code.SITE_SETTINGS_INVALID,
            "a site has either records of its own or a part of the run's",
            hint="give --train FILE, or --partition 0/3 to try a run out",
        )
    if match:
        listed = {} if run is None else {"sources": [run.data.train]}
        return {"partition": int(match[1]), "partitions": int(match[2]), **listed}
    return {"train": _absolute(train)}


def _absolute(source: str) -> str:
    """Make the path of an existing file or folder absolute; leave hub ids and globs alone."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else source
