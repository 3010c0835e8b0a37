"""The canonical bytes of a setup: what its digest covers and what a client keeps on disk."""

from __future__ import annotations

import hashlib

from fedft.errors import Code, FedftError
from fedft.wire.messages import Setup

_LENGTH = 8


def setup_bytes(setup: Setup) -> bytes:
    """Return the length of the configuration (8 bytes, little-endian), the configuration, the frame."""
    config = setup.config_json.encode()
    return len(config).to_bytes(_LENGTH, "little") + config + setup.frame


def parse_setup(data: bytes) -> Setup:
    """Inverse of ``setup_bytes``; FEDFT-7020 when the bytes are not a setup."""
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    try:
        if len(data) < max(end, _LENGTH):
            raise ValueError("too short")
        return Setup(data[_LENGTH:end].decode(), data[end:])
    except ValueError as error:
        raise FedftError(Code.SETUP_MALFORMED, f"{len(data)} bytes are not a setup: {error}") from None


def setup_digest(setup: Setup) -> str:
    """SHA-256 (hex) over the canonical bytes; it names a setup on the wire and on disk."""
    return hashlib.sha256(setup_bytes(setup)).hexdigest()
