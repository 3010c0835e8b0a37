"""Writing down what a site agrees to of how its records are read."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from fedft.client.site.config import SiteConfig, load_site
from fedft.client.site.pinned import Pinned
from fedft.config import RunConfig
from fedft.files import write_atomically
from fedft.models.digest import tokenizer_digest
from fedft.models.load import load_tokenizer
from fedft.training.client_records import ClientRecords
from fedft.training.task import make_task


@dataclass(frozen=True)
class Agreement:
    """What would be pinned, and what it makes of the site's records: for the person who agrees to it."""

    pinned: Pinned
    records: int
    samples: int


def propose(site: SiteConfig, run: RunConfig) -> Agreement:
    """Return what a run asks of a site, tried on the site's own records.

    Raises:
        FedftError: FEDFT-7059 (a run whose records the site has not listed), 2001, 2002 and 2004 from the
            tokenizer, 3xxx from the files; a record that cannot be read gives no sample.

    """
    config = site.localise(run)
    tokenizer = load_tokenizer(config.model)
    records = ClientRecords(config).of(max(site.data.partition, 0))
    samples, report = make_task(config, tokenizer).prepare(records, skip_unreadable=True)
    return Agreement(Pinned.of(config, tokenizer_digest(tokenizer)), report.records, len(samples))


def pin(path: Path, pinned: Pinned) -> None:
    """Write pins into a site's configuration, in place of those that it has."""
    table = tomllib.loads(path.read_text("utf-8"))
    write_atomically(path, tomli_w.dumps({**table, "pinned": pinned.model_dump(mode="json")}).encode())
    load_site(path)
