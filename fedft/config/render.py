"""A configuration as commented TOML, written from the schema so that the two cannot drift apart."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w

from fedft.config.named import OpenSection
from fedft.config.schema import RunConfig

_WIDTH = 100
_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "over {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
)


def to_toml(config: RunConfig, *, comments: bool = True, only: Mapping[str, Any] | None = None) -> str:
    """Write a configuration as TOML that loads to the same configuration.

    Args:
        config: what is written.
        comments: precede every key by its description, range and default.
        only: a nested table whose keys alone are written; None: every key.

    """
    schema = with_options(RunConfig.model_json_schema(), config)
    values = config.model_dump(mode="json")
    blocks = _blocks("", schema, schema["$defs"], values, only, comments)
    return "\n\n".join(blocks) + "\n"


def with_options(schema: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Add to the schema's sections the options of what a configuration names."""
    for key in RunConfig.model_fields:
        section = getattr(config, key)
        if isinstance(section, OpenSection):
            found = schema["$defs"][type(section).__name__]["properties"]
            found |= type(section.options).model_json_schema().get("properties", {})
    return schema


def _blocks(
    name: str,
    schema: Mapping[str, Any],
    sections: Mapping[str, Any],
    values: Mapping[str, Any],
    only: Mapping[str, Any] | None,
    comments: bool,
) -> Iterator[str]:
    """Yield the text of a section and of the sections inside it; nothing for one without keys."""
    scalars, inner = [], []
    for key, entry in schema["properties"].items():
        if only is not None and key not in only:
            continue
        if "$ref" not in entry:
            scalars += _key(key, entry, values[key], comments)
            continue
        section = sections[entry["$ref"].rpartition("/")[2]]
        below = None if only is None else only[key]
        path = f"{name}.{key}".lstrip(".")
        inner += list(_blocks(path, section, sections, values[key], below, comments))
    if scalars:
        head = [f"[{name}]"] if name else []
        about = _comment(schema["description"].replace("\n", " ")) if comments and name else []
        yield "\n".join(about + head + scalars)
    yield from inner


def _key(key: str, entry: Mapping[str, Any], value: Any, comments: bool) -> list[str]:
    line = f"{key} = {toml_value(value)}"
    if not comments:
        return [line]
    facts = [allowed(entry), f"default {toml_value(entry['default'])}"]
    about = f"{entry['description']} [{', '.join(fact for fact in facts if fact)}]"
    return [*_comment(about), line]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]


def allowed(entry: Mapping[str, Any]) -> str:
    """Say in words which values the JSON schema of a key allows; empty when its type says it all."""
    if "enum" in entry:
        return " | ".join(toml_value(choice) for choice in entry["enum"])
    if entry["type"] == "boolean":
        return "true | false"
    if "minimum" in entry and "maximum" in entry:
        return f"{_number(entry['minimum'])} to {_number(entry['maximum'])}"
    bounds = [words.format(_number(entry[key])) for key, words in _BOUNDS if key in entry]
    if "pattern" in entry:
        bounds.append(f"matches {entry['pattern']}")
    return ", ".join(bounds)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def toml_value(value: Any) -> str:
    """Write one value, lists on one line."""
    if isinstance(value, list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")
