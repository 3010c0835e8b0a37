"""Text from records: templates, chat messages and class labels."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedft.errors import Code, FedftError

Message = dict[str, str]


@dataclass(frozen=True)
class TextTemplate:
    """A Python format string over a record's fields, e.g. ``"Question: {question}\\nAnswer:"``.

    Only plain field names are allowed in braces; ``{{`` and ``}}`` are literal braces.
    """

    source: str

    def __post_init__(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.source))
        except ValueError as error:
            raise _bad_template(self.source, str(error)) from error
        for _, name, spec, conversion in parts:
            if name is not None and not (name.isidentifier() and not spec and not conversion):
                raise _bad_template(self.source, f"{{{name}}} is not a plain field name")

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the template reads, in order of appearance."""
        found = (name for _, name, _, _ in string.Formatter().parse(self.source) if name is not None)
        return tuple(dict.fromkeys(found))

    def render(self, values: Mapping[str, Any]) -> str:
        """Fill in the fields; a missing one is a KeyError with its name."""
        return self.source.format_map(values)


def _bad_template(source: str, why: str) -> FedftError:
    return FedftError(
        Code.TEMPLATE_MALFORMED,
        f"the template {source!r} is malformed: {why}",
        hint="use {field} for a record's field, {{ and }} for braces",
    )


def check_messages(messages: Any, where: str) -> list[Message]:
    """The messages of one chat, checked: roles and texts, the last one from the assistant.

    Raises:
        FedftError: FEDFT-3021.

    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise FedftError(Code.CHAT_MALFORMED, f"{where}: chat messages must be a non-empty list")
    for message in messages:
        well_formed = isinstance(message, Mapping) and all(
            isinstance(message.get(key), str) for key in ("role", "content")
        )
        if not well_formed:
            raise FedftError(
                Code.CHAT_MALFORMED,
                f'{where}: a message needs texts "role" and "content", got {message!r:.80}',
            )
    if messages[-1]["role"] != "assistant":
        raise FedftError(
            Code.CHAT_MALFORMED,
            f"{where}: the last message is from {messages[-1]['role']!r}",
            hint="the loss is on the final assistant message; the chat must end with one",
        )
    return [dict(message) for message in messages]


def label_index(value: Any, labels: Sequence[str], where: str) -> int:
    """The index of a class given by its name or by its index (a number, or its digits as text).

    Raises:
        FedftError: FEDFT-3023 for anything else.

    """
    text = str(value).strip()
    if text in labels:
        return labels.index(text)
    if not isinstance(value, bool | float) and text.isascii() and text.isdigit() and int(text) < len(labels):
        return int(text)
    raise FedftError(
        Code.LABEL_UNKNOWN,
        f"{where}: label {value!r} is none of {', '.join(labels)}, nor an index below {len(labels)}",
        hint="list the class names in task.labels, in label order",
    )
