"""The configuration of a site: what it is called, where its server, keys, data and model are."""

from __future__ import annotations

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedft.client.site.pinned import Pinned
from fedft.config.named import Section
from fedft.config.rules import MAX_MEMBERS, MIN_MEMBERS
from fedft.config.schema import FieldsSection, Names, RunConfig
from fedft.errors import Code, FedftError
from fedft.identity.names import NAME_PATTERN
from fedft.transport.tls import TlsFiles


class ServerSection(Section):
    """The server that this site takes instructions from, and from no other."""

    address: str = Field(pattern=r".+:\d+$", description="host:port of the server's link")
    authority: str = Field("ca.crt", description="certificate authority of the consortium")
    signing_key: str = Field("server.pub", description="public key that signs the server's instructions")


class IdentitySection(Section):
    """The keys that this site is known by. The private ones never leave it."""

    certificate: str = Field("certificate.pem", description="issued by the server's operator")
    key: str = Field("tls.key", description="private key of the certificate")
    signing_key: str = Field("signing.key", description="private key that signs this site's replies")


class SiteModelSection(Section):
    """The base model at this site."""

    source: str = Field(
        "", description="folder, hub id or package; empty: what the run's configuration names"
    )
    revision: str = Field("", description="hub revision; empty: what the run's configuration names")
    device: Literal["", "cpu", "cuda"] = Field(
        "", description="where the model is kept and computed; empty: what the run's configuration names"
    )


class SiteDataSection(Section):
    """This site's records; or, to compare with a simulation, a part of the run's own training records."""

    train: str = Field("", description="file, folder, glob or hub id of this site's training records")
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "arrow"] = Field(
        "auto", description="file format; auto goes by the file's ending"
    )
    columns: Names = Field((), description="column names of CSV/TSV files without a header")
    fields: FieldsSection | None = Field(
        None, description="which fields hold what; absent: as the run's configuration says"
    )
    partition: int = Field(-1, ge=-1, description="this site's part of the run's own records; -1: none")
    partitions: int = Field(0, ge=0, description="into how many parts the run's records are cut")
    sources: Names = Field(
        ("demo",), description="records of a run that a part may be taken of; nothing else is read"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.train) == (self.partition >= 0):
            raise ValueError("give either train, or partition and partitions")
        if self.partition >= 0 and self.partition >= self.partitions:
            raise ValueError(f"partition {self.partition} of {self.partitions}")
        return self


class PrivacyFiles(Section):
    """The site policy and the privacy ledger. Without a policy the site takes part in no private run."""

    policy: str = Field("", description="site policy (TOML)")
    ledger: str = Field("", description="privacy ledger; a relative path is one in the state folder")
    dataset: str = Field("train", description="name of this site's data in policy and ledger")


class SiteSecaggSection(Section):
    """Whom this site lets its updates be summed with, by the keys that they sign with.

    The keys come from the other sites themselves, never from the server alone: one that could name members
    at will would surround a site with members of its own.
    """

    peers: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        {}, description="the other sites' public signing keys, raw, in hex, by name"
    )
    smallest_cohort: int = Field(
        MIN_MEMBERS, ge=MIN_MEMBERS, le=MAX_MEMBERS, description="fewest sites that a sum may be of"
    )


class LimitsSection(Section):
    """What the daemon allows itself and others."""

    max_download_bytes: int = Field(2**31 - 1, gt=0, le=2**31 - 1, description="largest instruction taken")
    min_free_bytes: int = Field(256 << 20, ge=0, description="with less free disk, work is declined")
    grace_seconds: float = Field(
        30.0, ge=0, description="a worker still busy so long after its deadline ends"
    )
    answer_quantum_seconds: float = Field(
        5.0,
        ge=0,
        le=600,
        description="a site with a privacy ledger answers after a multiple of this; 0: at once",
    )


class SiteConfig(Section):
    """One site. Relative paths are relative to ``folder``, the folder of the file."""

    name: str = Field(pattern=NAME_PATTERN, description="the name that is enrolled")
    server: ServerSection
    data: SiteDataSection
    identity: IdentitySection = IdentitySection()
    model: SiteModelSection = SiteModelSection()
    privacy: PrivacyFiles = PrivacyFiles()
    pinned: Pinned | None = Field(None, description="how records are read; what a run asks must be the same")
    secagg: SiteSecaggSection = SiteSecaggSection()
    limits: LimitsSection = LimitsSection()
    state: str = Field("state", description="ledger, journal, residuals, status: what must not be lost")
    cache: str = Field("cache", description="folder of what can be fetched again")
    folder: Path = Field(Path(), exclude=True)

    def path(self, name: str) -> Path:
        """Resolve a path of this configuration."""
        return (self.folder / Path(name).expanduser()).absolute()

    @property
    def ledger(self) -> Path | None:
        """Where the privacy ledger lies; a relative path is one in the state folder."""
        return self.path(self.state) / Path(self.privacy.ledger).expanduser() if self.privacy.ledger else None

    @cached_property
    def tls(self) -> TlsFiles:
        """The files of the connection."""
        identity = self.identity
        return TlsFiles(
            self.path(self.server.authority), self.path(identity.certificate), self.path(identity.key)
        )

    def localise(self, config: RunConfig) -> RunConfig:
        """Return a run's configuration with this site's model and data in place of the server's paths."""
        return config.model_copy(update={"model": self._model(config), "data": self._data(config)})

    def _model(self, config: RunConfig) -> object:
        chosen = {name: value for name, value in vars(self.model).items() if value}
        return config.model.model_copy(update=chosen)

    def _data(self, config: RunConfig) -> object:
        if not self.data.train:
            return self._part(config)
        local = Path(self.data.train).expanduser()
        found = "*" in self.data.train or (self.folder / local).exists()
        whole = config.data.partition.model_copy(update={"kind": "iid", "clients": 1})
        return config.data.model_copy(
            update={
                "train": str(self.path(self.data.train)) if found else self.data.train,
                "format": self.data.format,
                "columns": self.data.columns,
                "fields": self.data.fields or config.data.fields,
                "partition": whole,
            }
        )

    def _part(self, config: RunConfig) -> object:
        if config.data.train not in self.data.sources:
            raise FedftError(
                Code.RECORDS_NOT_LISTED,
                f"the run's records are {config.data.train}, this site reads {', '.join(self.data.sources)}",
                hint="the site's operator can list it in data.sources of site.toml",
            )
        return config.data


def load_site(path: Path) -> SiteConfig:
    """Read a site's configuration.

    Raises:
        FedftError: FEDFT-7050 when it is missing, not TOML, or has mistakes; all of them are listed.

    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        return SiteConfig.model_validate({**table, "folder": path.absolute().parent})
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)
        ]
        problem = "\n  ".join(["", *mistakes])
    except (OSError, ValueError) as error:
        problem = str(error)
    raise FedftError(
        Code.SITE_SETTINGS_INVALID,
        f"the site configuration {path} cannot be used: {problem}",
        hint="`fedft client join` writes one to start from",
    )
