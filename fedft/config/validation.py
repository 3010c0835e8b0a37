"""Everything that is wrong with a configuration, found in one pass."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from fedft.config.rules import ContradictionError
from fedft.config.schema import RunConfig

_LONGEST_VALUE = 80


@dataclass(frozen=True)
class ValidationIssue:
    """One mistake: the dotted path of a key, and what is wrong, with the value seen and what is allowed."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def validate(table: Mapping[str, Any]) -> tuple[RunConfig | None, list[ValidationIssue]]:
    """Validate a nested table: the configuration and no mistakes, or None and all of them.

    ContradictionError between keys are found too while other keys are wrong: those are taken as their
    defaults, and a contradiction that depends on one of them is left out.
    """
    try:
        return RunConfig.model_validate(dict(table)), []
    except ValidationError as error:
        items = error.errors(include_url=False)
    if _is_contradiction(items):
        return None, _contradictions(items, ())
    wrong = tuple(tuple(item["loc"]) for item in items)
    return None, [_mistake(item) for item in items] + _contradictions(_again(table, wrong), wrong)


def _again(table: Mapping[str, Any], wrong: Sequence[tuple[int | str, ...]]) -> Sequence[Any]:
    """Validate once more without the keys that are wrong; return the errors."""
    cleaned = copy.deepcopy(dict(table))
    for path in wrong:
        _remove(cleaned, path)
    try:
        RunConfig.model_validate(cleaned)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _remove(table: dict[str, Any], path: Sequence[int | str]) -> None:
    inner: Any = table
    for index, part in enumerate(path):
        below = inner.get(part)
        if index == len(path) - 1 or not isinstance(below, dict):
            inner.pop(part, None)
            return
        inner = below


def _is_contradiction(items: Sequence[Any]) -> bool:
    return len(items) == 1 and isinstance(items[0].get("ctx", {}).get("error"), ContradictionError)


def _contradictions(items: Sequence[Any], wrong: Sequence[tuple[int | str, ...]]) -> list[ValidationIssue]:
    if not _is_contradiction(items):
        return []
    unknown = {".".join(str(part) for part in path) for path in wrong}

    def known(key: str) -> bool:
        return not any(f"{key}.".startswith(f"{path}.") or path.startswith(f"{key}.") for path in unknown)

    found: tuple[Any, ...] = items[0]["ctx"]["error"].found
    return [
        ValidationIssue(item.path, item.message)
        for item in found
        if all(map(known, (item.path, *item.others)))
    ]


def _mistake(item: Any) -> ValidationIssue:
    path = ".".join(str(part) for part in item["loc"]) or "(whole file)"
    seen = repr(item.get("input"))
    if len(seen) > _LONGEST_VALUE:
        seen = f"{seen[:_LONGEST_VALUE]}…"
    if item["type"] == "extra_forbidden":
        return ValidationIssue(path, f"unknown key, {_known_keys(item['loc'])}")
    if item["type"] == "model_type":
        return ValidationIssue(path, f"should be a section of keys, got {seen}")
    return ValidationIssue(path, f"{str(item['msg']).removeprefix('Value error, ')}, got {seen}")


def _known_keys(location: Sequence[int | str]) -> str:
    keys = list(_section(location[:-1]).model_fields)
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed here: {', '.join(keys)}"


def _section(location: Sequence[int | str]) -> type[BaseModel]:
    section: type[BaseModel] = RunConfig
    for part in location:
        inner = section.model_fields[str(part)].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = inner
    return section
