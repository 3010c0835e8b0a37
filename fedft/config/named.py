"""Keys that name a registered thing, and the further keys that are that thing's own options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import PydanticCustomError, core_schema

from fedft.options import NoOptions, Options
from fedft.registry import Registry


class Section(Options):
    """A part of the configuration."""


class Named:
    """Annotates a string that names a registered thing, or is one of some further words.

    Args:
        registry: whose names are allowed.
        others: words that name nothing, such as "none"; they come first.

    """

    def __init__(self, registry: Registry[Any], *others: str) -> None:
        self.registry = registry
        self.others = others

    @property
    def names(self) -> tuple[str, ...]:
        """All that is allowed."""
        return (*self.others, *self.registry.names())

    def options(self, name: str) -> type[Options]:
        """Return the schema of what a name's thing can be told; raises as ``Registry.get`` does."""
        thing = None if name in self.others else self.registry.get(name)
        found: type[Options] | None = getattr(thing, "options", None)
        return found or NoOptions

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names)}

    def _known(self, name: str) -> str:
        if name not in self.names:
            *most, last = (f"'{each}'" for each in self.names)
            allowed = f"{', '.join(most)} or {last}" if most else last
            raise PydanticCustomError("unknown_name", "{text}", {"text": f"Input should be {allowed}"})
        return name


class OpenSection(Section):
    """A section with one key that names a thing; keys that it does not know are that thing's options."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def naming_key(cls) -> tuple[str, Named]:
        """Return the key that names the thing, and what it may name."""
        for key, field in cls.model_fields.items():
            for mark in field.metadata:
                if isinstance(mark, Named):
                    return key, mark
        raise TypeError(f"{cls.__name__} has no key that names a registered thing")

    @classmethod
    def options_for(cls, values: Mapping[str, Any]) -> type[Options]:
        """Return the schema of the options that go with a section's values; none for an unknown name."""
        key, named = cls.naming_key()
        name = values.get(key, cls.model_fields[key].default)
        return named.options(name) if name in named.names else NoOptions

    @property
    def options(self) -> Any:
        """The options of what the section names, an instance of that thing's own class."""
        return self.options_for(dict(self)).model_validate(self.model_extra)

    @model_validator(mode="after")
    def _take_options(self) -> Self:
        given = self.__pydantic_extra__ or {}
        given |= self.options.model_dump()
        object.__setattr__(self, "__pydantic_extra__", given)
        return self
