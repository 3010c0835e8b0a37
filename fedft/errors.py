"""The one exception type that users see, with a stable code for every kind of failure."""

from __future__ import annotations

from fedft.codes import Code, Kind

__all__ = ["Code", "FedftError", "Kind"]


class FedftError(Exception):
    """A failure with a stable code, what happened with the value seen, and what to do about it.

    Args:
        code: a ``Code``, or a peer's ``FEDFT-nnnn``, which may be one that this build does not know.
        message: what happened and the value seen, one sentence.
        hint: what the reader can do about it; empty when the message says so already.

    """

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        self.code = Code(code)
        self.message = message
        self.hint = hint
        super().__init__(self.code, message, hint)

    def __str__(self) -> str:
        tail = f" ({self.hint})" if self.hint else ""
        return f"{self.code} {self.message}{tail}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.message, self.hint)


def _rebuild(kind: type[FedftError], code: str, message: str, hint: str) -> FedftError:
    return kind(code, message, hint=hint)
