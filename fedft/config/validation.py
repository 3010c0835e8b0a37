"""Everything that is wrong with a configuration, found in one pass."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from fedft.config.named import OpenSection
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

    Contradictions between keys are found too while other keys are wrong: those are taken as their
    defaults, and a contradiction that depends on one of them is left out.
    """
    left, found = dict(table), list[Any]()
    config, items = _attempt(left)
    while items and not _is_contradiction(items):
        # Options are looked at only once all else in their section is right.
        found += [item for item in items if not _follows(item, found)]
        left, before = _without(left, _places(items)), left
        items = _attempt(left)[1] if left != before else []
    return config, [_mistake(item, table) for item in found] + _contradictions(items, _places(found))


def _places(items: Sequence[Any]) -> tuple[tuple[int | str, ...], ...]:
    return tuple(tuple(item["loc"]) for item in items)


def _follows(item: Any, found: Sequence[Any]) -> bool:
    """Whether an option is unknown only because the key that names its owner is wrong."""
    section = _section(item["loc"][:-1])
    owner = section.naming_key()[0] if issubclass(section, OpenSection) else None
    return (*item["loc"][:-1], owner) in _places(found)


def _attempt(table: Mapping[str, Any]) -> tuple[RunConfig | None, Sequence[Any]]:
    try:
        return RunConfig.model_validate(dict(table)), ()
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _without(table: Mapping[str, Any], places: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    cleaned = copy.deepcopy(dict(table))
    for path in places:
        _remove(cleaned, path)
    return cleaned


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


def _mistake(item: Any, table: Mapping[str, Any]) -> ValidationIssue:
    path = ".".join(str(part) for part in item["loc"]) or "(whole file)"
    seen = repr(item.get("input"))
    if len(seen) > _LONGEST_VALUE:
        seen = f"{seen[:_LONGEST_VALUE]}…"
    if item["type"] == "extra_forbidden":
        return ValidationIssue(path, f"unknown key, {_known_keys(item['loc'], table)}")
    if item["type"] == "model_type":
        return ValidationIssue(path, f"should be a section of keys, got {seen}")
    return ValidationIssue(path, f"{str(item['msg']).removeprefix('Value error, ')}, got {seen}")


def _known_keys(location: Sequence[int | str], table: Mapping[str, Any]) -> str:
    section, values = _section(location[:-1]), table
    for part in location[:-1]:
        values = values[str(part)]
    keys = list(section.model_fields)
    if issubclass(section, OpenSection):
        keys += section.options_for(values).model_fields
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed here: {', '.join(keys)}"


def _section(location: Sequence[int | str]) -> type[BaseModel]:
    section: type[BaseModel] = RunConfig
    for part in location:
        inner = section.model_fields[str(part)].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = inner
    return section
