"""Every key of a configuration, and what is made of the list: the reference and Flower's manifest.

Options of built-in things are in the list, those of other packages are not: both files are the project's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedft.config.named import OpenSection
from fedft.config.render import allowed, toml_value
from fedft.config.schema import RunConfig
from fedft.options import Options

_REFERENCE = """\
# Configuration reference

Made from the schema by `make reference`; do not edit. [configuration.md](../configuration.md) explains.
A key marked with a name is an option of what goes by it; another package's things add theirs to the section.
"""
_MANIFEST = {"config": "demo", "resume": ""}


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        section: dotted; empty at the top.
        name: within its section.
        facts: its entry in the JSON schema: description, default, type and range.
        owner: the built-in thing whose option it is; empty for a key of the section itself.

    """

    section: str
    name: str
    facts: dict[str, Any]
    owner: str = ""

    @property
    def path(self) -> str:
        """The dotted path."""
        return f"{self.section}.{self.name}".lstrip(".")


def keys() -> list[Key]:
    """Return every key, section by section in the order of the schema."""
    return list(_keys("", RunConfig))


def _keys(section: str, model: type[BaseModel]) -> Iterator[Key]:
    facts = model.model_json_schema()["properties"]
    inner = {name: _section_of(field) for name, field in model.model_fields.items()}
    for name, below in inner.items():
        if below is None:
            yield Key(section, name, facts[name])
    if issubclass(model, OpenSection):
        yield from _options(section, model)
    for name, below in inner.items():
        if below is not None:
            yield from _keys(f"{section}.{name}".lstrip("."), below)


def _options(section: str, model: type[OpenSection]) -> Iterator[Key]:
    named = model.naming_key()[1]
    found: set[tuple[type[Options], str]] = set()
    for owner in named.registry.built_in:
        options = named.options(owner)
        for name, facts in options.model_json_schema().get("properties", {}).items():
            if (options, name) not in found:
                found.add((options, name))
                yield Key(section, name, facts, owner)


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    inner = field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def reference() -> str:
    """Return the reference as Markdown."""
    parts, last = [_REFERENCE], None
    for key in keys():
        if key.section != last:
            last = key.section
            title = f"`[{last}]`" if last else "Top level"
            parts.append(f"\n## {title}\n\n| key | default | allowed | meaning |\n|---|---|---|---|\n")
        name = f"`{key.name}`" + (f" ({key.owner})" if key.owner else "")
        cells = [name, f"`{toml_value(key.facts['default'])}`", allowed(key.facts), key.facts["description"]]
        parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return "".join(parts)


def manifest() -> str:
    """Return the tables of Flower's manifest that list what ``-c`` may override."""
    lines, last = ["[tool.flwr.app.config]", *(f'{k} = "{v}"' for k, v in _MANIFEST.items())], ""
    for section, name in dict.fromkeys((key.section, key.name) for key in keys()):
        if section != last:
            last = section
            lines += ["", f"[tool.flwr.app.config.{section}]"]
        lines.append(f'{name} = ""')
    return "\n".join(lines) + "\n"
