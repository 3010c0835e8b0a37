"""The configuration of a deployed server and its folder."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from fedft.config.named import Section
from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.identity import keys
from fedft.identity.documents import ServerBundle
from fedft.identity.site_files import CERTIFICATE, make_identity, write_admin_file
from fedft.transport.tls import TlsFiles

_FILE = "server.toml"


class ServerLimits(Section):
    """What the server takes from others."""

    max_upload_bytes: int = Field(512 << 20, gt=0, le=2**31 - 1, description="largest reply taken")
    max_clients: int = Field(256, ge=1, le=10_000, description="sessions at once")
    silence_seconds: float = Field(6.0, ge=1, description="after so long without a heartbeat a site is gone")
    retry_seconds: float = Field(
        15.0, gt=0, description="pause before a run that lacks clients is tried again"
    )


class ServerSettings(Section):
    """One server; ``folder`` holds everything that it keeps."""

    name: str = Field("fedft", description="name of the consortium, in the certificates")
    hosts: tuple[str, ...] = Field(min_length=1, description="names and addresses that clients use")
    link: str = Field("0.0.0.0:7443", description="address and port that clients connect to")
    admin: str = Field("0.0.0.0:7444", description="address and port of the admin service")
    metrics: str = Field(
        "127.0.0.1:9464", description="Prometheus metrics and health, unencrypted; empty: none"
    )
    limits: ServerLimits = ServerLimits()
    folder: Path = Field(Path(), exclude=True)

    @property
    def tls(self) -> TlsFiles:
        """The server's certificate."""
        return TlsFiles(
            self.folder / "ca" / "ca.crt",
            self.folder / "tls" / "server.crt",
            self.folder / "tls" / "server.key",
        )

    @property
    def signing_key_path(self) -> Path:
        """The key that signs instructions."""
        return self.folder / "tls" / "signing.key"

    @property
    def store_folder(self) -> Path:
        """The run store."""
        return self.folder / "store"

    def bundle(self) -> ServerBundle:
        """Return what a site needs to know."""
        signing = keys.load_signing_key(self.signing_key_path).public_key()
        return ServerBundle(
            link_address=f"{self.hosts[0]}:{self.link.rpartition(':')[2]}",
            admin_address=f"{self.hosts[0]}:{self.admin.rpartition(':')[2]}",
            authority=self.tls.authority.read_text(),
            signing_key=keys.public_pem(signing).decode(),
        )

    def write_bundle(self) -> Path:
        """Write ``join.json``, with which sites join under the present addresses; return its path."""
        path = self.folder / "join.json"
        write_atomically(path, self.bundle().to_json().encode())
        return path


def load_settings(folder: Path) -> ServerSettings:
    """Read a server's settings.

    Raises:
        FedftError: FEDFT-6201 when the folder was not made by ``fedft server init``, FEDFT-6204 when the
            file has mistakes.

    """
    path = folder / _FILE
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        return ServerSettings.model_validate({**table, "folder": folder.absolute()})
    except FileNotFoundError:
        raise FedftError(
            Code.SERVER_FOLDER_INVALID,
            f"no {_FILE} in {folder}",
            hint=f"make one: fedft server init {folder}",
        ) from None
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)
        ]
        problem = "\n  ".join(["", *mistakes])
    except (OSError, ValueError) as error:
        problem = str(error)
    raise FedftError(Code.SERVER_SETTINGS_INVALID, f"{path} cannot be used: {problem}")


def initialise(settings: ServerSettings) -> Path:
    """Make a server's folder: settings, authority, certificates, and the first operator in ``admin/``.

    Returns:
        The path of the bundle that sites join with.

    Raises:
        FedftError: FEDFT-6202 when the folder holds something already.

    """
    from fedft.identity.authority import Authority
    from fedft.identity.enrolment import enroll
    from fedft.identity.registry import Registry

    folder = settings.folder
    if folder.exists() and any(folder.iterdir()):
        raise FedftError(
            Code.SERVER_FOLDER_NOT_EMPTY,
            f"{folder} is not empty",
            hint="name a new folder; an authority is never made twice",
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority = Authority.create(folder / "ca", settings.name)
    authority.renew_server(settings.tls.certificate, settings.tls.key, settings.name, settings.hosts)
    keys.write_private(settings.signing_key_path, keys.private_pem(Ed25519PrivateKey.generate()))
    registry = Registry(folder / "server.sqlite")
    request = make_identity(folder / "admin", "operator", settings.bundle())
    _, certificate, _ = enroll(registry, authority, request.read_text(), "operator")
    write_atomically(folder / "admin" / CERTIFICATE, certificate.encode())
    write_admin_file(folder / "admin", settings.bundle().admin_address)
    registry.close()
    bundle = settings.write_bundle()
    # Last: a folder with settings is a whole one.
    write_atomically(folder / _FILE, tomli_w.dumps(settings.model_dump(mode="json")).encode())
    return bundle
