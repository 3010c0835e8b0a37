"""A site's ledger and the data that it is bound to, for the site's operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedft.client.site.config import SiteConfig
from fedft.config import RunConfig
from fedft.config.load import check
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import COARSE, pld_epsilon
from fedft.privacy.site.ledger import Ledger
from fedft.privacy.site.policy import load_policy
from fedft.training.client_records import ClientRecords

_USUAL_DELTA = 1e-5


def ledger_path(site: SiteConfig) -> Path:
    """Return where the site's ledger lies.

    Raises:
        FedftError: FEDFT-8201 when ``site.toml`` names none, and when one lies in the site's folder, where
            version 0.1 kept it: a new one would start at nothing.

    """
    if site.ledger is None:
        raise FedftError(
            Code.LEDGER_NOT_FOUND,
            "site.toml names no privacy ledger",
            hint='set ledger = "ledger.sqlite" in its [privacy] section, then: fedft privacy ledger init',
        )
    before = site.path(site.privacy.ledger)
    if before.exists() and not site.ledger.exists():
        raise FedftError(
            Code.LEDGER_NOT_FOUND,
            f"the ledger lies in {before.parent}, where version 0.1 kept it, not in {site.ledger.parent}",
            hint=f"stop the daemon, then there: mv {before.name} {before.name}.head {site.state}/",
        )
    return site.ledger


def open_ledger(site: SiteConfig) -> Ledger:
    """Open the site's ledger, verified; FEDFT-8201 to 8204, 8208."""
    return Ledger(ledger_path(site))


def init_ledger(site: SiteConfig, fingerprint: str, records: int) -> Path:
    """Make the ledger unless it is there, and enrol the site's data set; FEDFT-8206 if bound otherwise."""
    path = ledger_path(site)
    path.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(path) if path.exists() else Ledger.create(path)
    ledger.enrol(site.privacy.dataset, fingerprint, records)
    return path


def site_records(site: SiteConfig, run: RunConfig | None = None) -> tuple[ClientRecords, int]:
    """Return the records of a site, and which client of them it is.

    Args:
        site: with data of its own, or with a part of a run's records.
        run: whose records the site has a part of; not needed for its own.

    Raises:
        FedftError: FEDFT-7050 without ``run`` for a site that has a part of one, 3xxx from reading.

    """
    if not site.data.train and run is None:
        raise FedftError(
            Code.SITE_SETTINGS_INVALID,
            "this site's data are a part of a run's own records",
            hint="name that run's configuration",
        )
    return ClientRecords(site.localise(run or check({}))), max(site.data.partition, 0)


def site_fingerprint(site: SiteConfig, run: RunConfig | None = None) -> tuple[str, int]:
    """Return the digest of a site's records, and how many there are."""
    records, client = site_records(site, run)
    return records.fingerprint(client)


def summary(ledger: Ledger, site: SiteConfig | None, delta: float = 0.0) -> list[dict[str, Any]]:
    """Return what was spent on each data set of a ledger, in all and by run.

    Args:
        ledger: verified by opening it.
        site: whose policy gives budgets and δ; None for none.
        delta: of the statement; 0 for the policy's, or 1e-5.

    """
    policy = load_policy(site.path(site.privacy.policy)) if site and site.privacy.policy else None
    charges = [entry.body for entry in ledger.entries() if entry.body["kind"] == "charge"]
    found = []
    for dataset, (fingerprint, examples) in ledger.bindings().items():
        rule = policy.datasets.get(dataset) if policy else None
        at = delta or (rule.delta if rule else _USUAL_DELTA)
        own = [body for body in charges if body["dataset"] == dataset]
        runs = [
            {
                "run": run,
                "charges": sum(body["run"] == run for body in own),
                "last_round": max(body["round"] for body in own if body["run"] == run),
                "epsilon": pld_epsilon(ledger.events_of_run(dataset, run), at, interval=COARSE),
            }
            for run in dict.fromkeys(body["run"] for body in own)
        ]
        found.append(
            {
                "dataset": dataset,
                "examples": examples,
                "fingerprint": fingerprint,
                "delta": at,
                "epsilon": ledger.claim(dataset, at).epsilon,
                "budget": {"epsilon": rule.epsilon, "delta": rule.delta} if rule else None,
                "runs": runs,
            }
        )
    return found
