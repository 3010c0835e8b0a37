"""Making the keys and files with which a site or an operator joins a server."""

from __future__ import annotations

from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.identity import keys
from fedft.identity.documents import ServerBundle, make_request
from fedft.identity.names import checked_member_name

REQUEST, CERTIFICATE, ADMIN_FILE = "request.json", "certificate.pem", "admin.toml"


def make_identity(folder: Path, name: str, bundle: ServerBundle) -> Path:
    """Write keys, the server's public files and an enrolment request into a new folder.

    The private keys are readable by their owner only and are never sent anywhere.

    Returns:
        The path of the request, for the server's operator.

    Raises:
        FedftError: FEDFT-7056 when the name cannot be one, FEDFT-7051 when the folder holds something
            already, FEDFT-7055 when it cannot be written.

    """
    checked_member_name(name)
    if folder.exists() and any(folder.iterdir()):
        raise FedftError(
            Code.KEY_FOLDER_NOT_EMPTY,
            f"{folder} is not empty",
            hint="name a new folder; keys are never made twice",
        )
    tls_key, signing_key = keys.new_tls_key(), Ed25519PrivateKey.generate()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        keys.write_private(folder / "tls.key", keys.private_pem(tls_key))
        keys.write_private(folder / "signing.key", keys.private_pem(signing_key))
        write_atomically(folder / "ca.crt", bundle.authority.encode())
        write_atomically(folder / "server.pub", bundle.signing_key.encode())
        write_atomically(folder / REQUEST, make_request(name, tls_key, signing_key).encode())
    except OSError as error:
        raise FedftError(Code.SITE_DISK_UNWRITABLE, f"cannot write to {folder}: {error.strerror}") from error
    return folder / REQUEST


def write_admin_file(folder: Path, address: str) -> None:
    """Write ``admin.toml``, which says where the server is."""
    write_atomically(folder / ADMIN_FILE, tomli_w.dumps({"address": address}).encode())
