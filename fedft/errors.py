"""The one exception type that users see, with a stable code for every kind of failure.

Every code is listed in docs/errors.md; a test compares the two. Codes are never reused. The bands:
1xxx configuration, 2xxx models, adapters and frames, 3xxx data and training, 4xxx wire and codecs,
5xxx aggregation, 6xxx store, runs and server, 7xxx client and link, 8xxx privacy, 9xxx quantisation
and kernels.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"FEDFT-\d{4}")


class FedftError(Exception):
    """A failure with a stable code, what happened with the value seen, and what to do about it.

    Args:
        code: ``FEDFT-nnnn``, listed in docs/errors.md.
        message: what happened and the value seen, one sentence.
        hint: what the reader can do about it; empty when the message says so already.

    """

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        if not _CODE.fullmatch(code):
            raise ValueError(f"not an error code: {code!r}")
        self.code = code
        self.message = message
        self.hint = hint
        super().__init__(code, message, hint)

    def __str__(self) -> str:
        tail = f" ({self.hint})" if self.hint else ""
        return f"{self.code} {self.message}{tail}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.message, self.hint)


def _rebuild(kind: type[FedftError], code: str, message: str, hint: str) -> FedftError:
    return kind(code, message, hint=hint)
