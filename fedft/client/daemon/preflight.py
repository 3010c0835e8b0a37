"""Every precondition of taking part, tried one after the other."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedft.client.daemon.daemon import require_valid_certificate
from fedft.client.daemon.status import read_status
from fedft.client.site.config import SiteConfig, load_site
from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.identity import keys
from fedft.transport.client import Connected, LinkClient

_MOST_SKEW = 120.0
_CONNECT_SECONDS = 15.0


@dataclass(frozen=True)
class Result:
    """What one check found; ``found`` has the error's code when it is not good."""

    name: str
    good: bool
    found: str


def run_checks(path: Path, *, model: bool = True) -> list[Result]:
    """Try everything; a check that fails does not keep the others from being tried.

    Args:
        path: of the site's configuration.
        model: load the base model too, when the site's configuration names one.

    """
    try:
        site = load_site(path)
    except FedftError as error:
        return [Result("configuration", False, str(error))]
    results = [Result("configuration", True, f"{site.name}, in {site.folder}")]
    for name, check in _checks(site, model=model):
        try:
            results.append(Result(name, True, check(site)))
        except FedftError as error:
            results.append(Result(name, False, str(error)))
    return results


def _checks(site: SiteConfig, *, model: bool) -> Iterator[tuple[str, Callable[[SiteConfig], str]]]:
    yield "certificate", _certificate
    yield "signing keys", _signing_keys
    yield "disk", _disk
    yield "server", _server
    if site.data.train:
        yield "data", _data
    if model and site.model.source:
        yield "model", _model
    if site.privacy.policy:
        yield "policy", _policy
        yield "pinned", _pinned
    if site.privacy.ledger:
        yield "ledger", _ledger


def _certificate(site: SiteConfig) -> str:
    end = require_valid_certificate(site)
    return f"valid until {end:%Y-%m-%d}"


def _signing_keys(site: SiteConfig) -> str:
    keys.load_signing_key(site.path(site.identity.signing_key))
    keys.parse_public_signing_key(keys.read_file(site.path(site.server.signing_key)))
    return "readable"


def _disk(site: SiteConfig) -> str:
    for name in (site.state, site.cache):
        probe = site.path(name) / "probe"
        try:
            write_atomically(probe, b"probe")
            probe.unlink()
        except OSError as error:
            raise FedftError(
                Code.SITE_DISK_UNWRITABLE, f"cannot write to {probe.parent}: {error.strerror}"
            ) from None
    free = shutil.disk_usage(site.path(site.state)).free
    if free < site.limits.min_free_bytes:
        raise FedftError(Code.SITE_DISK_UNWRITABLE, f"{free >> 20} MiB are free", hint="free space")
    return f"{free >> 30} GiB free"


def _server(site: SiteConfig) -> str:
    """Open a connection as the daemon would; one that runs already is proof enough."""
    status, running = read_status(site.path(site.state))
    if running and status is not None and status.connected:
        return _describe(site, status.clock_skew, "the daemon is connected")
    stop, accepted = threading.Event(), list[Connected]()

    def arrived(terms: Connected) -> None:
        accepted.append(terms)
        stop.set()

    link = LinkClient(site.tls, site.server.address, stop)
    timer = threading.Timer(_CONNECT_SECONDS, stop.set)
    timer.start()
    try:
        link.connection(arrived, lambda _work: None)
    finally:
        timer.cancel()
        link.close()
    if not accepted:
        raise FedftError(
            Code.SERVER_UNREACHABLE, f"no answer from {site.server.address} in {_CONNECT_SECONDS:g} s"
        )
    if accepted[0].client_name != site.name:
        raise FedftError(
            Code.CLIENT_NAME_MISMATCH, f"this key is enrolled as {accepted[0].client_name}, not {site.name}"
        )
    return _describe(site, accepted[0].clock_skew, f"enrolled as {site.name}")


def _describe(site: SiteConfig, skew: float, how: str) -> str:
    if abs(skew) > _MOST_SKEW:
        raise FedftError(
            Code.CLOCK_SKEW,
            f"the server's clock is {skew:+.0f} s from this one",
            hint="correct the wrong clock",
        )
    return f"{site.server.address}, {how}, clocks {abs(skew):.1f} s apart"


def _data(site: SiteConfig) -> str:
    from fedft.config import RunConfig
    from fedft.config.load import check
    from fedft.data.readers import load_records

    config: RunConfig = site.localise(check({}))
    data = config.data
    records = load_records(data.train, format=data.format, columns=data.columns, split="train")
    return f"{len(records)} records in {data.train}"


def _model(site: SiteConfig) -> str:
    from fedft.config.load import check
    from fedft.models.load import load_base

    config = site.localise(check({"model": {"quant": _stored(site.model.source)}}))
    return f"{site.model.source}, digest {load_base(config.model, config.task, config.seed).digest[:16]}…"


def _stored(source: str) -> str:
    from fedft.models.quantised import stored_format
    from fedft.models.sources import resolve_source

    return stored_format(Path(resolve_source(source)))


def _policy(site: SiteConfig) -> str:
    from fedft.privacy.site.policy import load_policy

    policy = load_policy(site.path(site.privacy.policy))
    budget = policy.budget(site.privacy.dataset)
    return f"{site.privacy.dataset}: epsilon {budget.epsilon:g} at delta {budget.delta:g}"


def _pinned(site: SiteConfig) -> str:
    if site.pinned is None:
        raise FedftError(
            Code.NOT_PINNED,
            "this site has not agreed to how its records are read",
            hint="fedft client pin RUN.toml",
        )
    return f"{site.pinned.task}, {site.pinned.dtype}, tokenizer {site.pinned.tokenizer[:16]}…"


def _ledger(site: SiteConfig) -> str:
    from fedft.client.site.ledger import open_ledger, site_fingerprint, summary

    ledger = open_ledger(site)
    ledger.check_writable()
    dataset = site.privacy.dataset
    bound = ledger.bindings().get(dataset)
    if bound is None:
        raise FedftError(
            Code.DATASET_NOT_ENROLLED,
            f"the ledger knows no data set {dataset!r}",
            hint="fedft privacy ledger init",
        )
    if site.data.train and site_fingerprint(site) != bound:
        raise FedftError(
            Code.DATASET_CHANGED,
            f"the data of {dataset!r} are not those that the ledger is bound to",
            hint="use the data that was enrolled, or: fedft privacy ledger rebind",
        )
    spent = next(item for item in summary(ledger, site) if item["dataset"] == dataset)
    return (
        f"whole, {len(ledger.entries())} entries; {dataset}: epsilon {spent['epsilon']:.4g} at delta "
        f"{spent['delta']:g} spent"
    )
