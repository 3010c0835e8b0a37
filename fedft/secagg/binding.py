"""One digest over many fields, so that what is signed or derived belongs to one place alone."""

from __future__ import annotations

import hashlib
import struct

PROTOCOL = b"fedft secagg v1 "
"""Stands before every context; a change of what is signed, derived or sent changes the number."""


def bind(context: bytes, *fields: bytes | int) -> bytes:
    """SHA-256 over a context and fields, each with its length; integers as eight bytes, little endian.

    Two different lists of fields never give the same input to the hash.
    """
    digest = hashlib.sha256()
    for field in (PROTOCOL + context, *fields):
        data = struct.pack("<Q", field) if isinstance(field, int) else field
        digest.update(struct.pack("<Q", len(data)) + data)
    return digest.digest()


def bind_members(members: tuple[int, ...]) -> bytes:
    """Give a list of member numbers as bytes for ``bind``."""
    return struct.pack(f"<{len(members)}H", *members)
