"""``fedft client check``: what is wrong with a site, before its daemon starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import tomli_w

from fedft.client.daemon.preflight import run_checks
from fedft.client.daemon.status import Status, StatusFile, lock_state
from fedft.client.site.config import load_site


@pytest.mark.parametrize(("skew", "wrong"), [(2.0, False), (-2.0, False), (600.0, True), (-600.0, True)])
def test_a_clock_that_is_wrong_by_minutes(skew: float, wrong: bool, tmp_path: Path) -> None:
    table = {"name": "a", "server": {"address": "host:1"}, "data": {"train": "own.jsonl"}}
    (tmp_path / "site.toml").write_text(tomli_w.dumps(table))
    site = load_site(tmp_path / "site.toml")
    state = site.path(site.state)
    running = lock_state(state)
    StatusFile(state, Status("a", "host:1", started=time.time(), connected=True, clock_skew=skew)).update()

    with running:
        result = next(each for each in run_checks(tmp_path / "site.toml") if each.name == "server")

    assert result.good != wrong
    assert ("FEDFT-7057 " in result.found) == wrong
    assert (f"{skew:+.0f} s" in result.found) == wrong
