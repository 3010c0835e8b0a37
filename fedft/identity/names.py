"""What a member may be called: one rule for those who choose a name and those who are told one."""

from __future__ import annotations

import re

from fedft.errors import Code, FedftError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def checked_member_name(name: str) -> str:
    """Return a name that can also name a file and stand in a certificate; FEDFT-7056 for any other."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise FedftError(
            Code.JOIN_BUNDLE_INVALID,
            f"{name[:80]!r} is not a name",
            hint="a letter or digit, then up to 63 letters, digits, dots, dashes, underscores",
        )
    return name
