"""Registries: things of one kind by name, some built in and some from other people's packages.

A package adds one with an entry point, and no module here needs to know of it::

    [project.entry-points."fedft.frames"]
    hadamard = "my_package.frames:HADAMARD"

A built-in one is declared in the same words, ``"module:attribute"``. Nothing is imported before its name is
asked for, so the names alone, of which the configuration's schema is made, cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar, cast

from fedft.errors import Code, FedftError

T = TypeVar("T")

_OWN = "fedft"


class Registry(Generic[T]):
    """Finds things of one kind by name.

    Args:
        what: the kind, as in "no ... is called".
        group: the entry points' group, such as ``fedft.frames``.
        interface: reference to the class that everything here is an instance or a subclass of.
        built_in: references by name, in the order in which they are listed.

    """

    def __init__(self, what: str, group: str, interface: str, built_in: Mapping[str, str]) -> None:
        self.what = what
        self.group = group
        self._interface = interface
        self._built_in = dict(built_in)
        self._loaded: dict[str, T] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._claims

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    @property
    def built_in(self) -> tuple[str, ...]:
        """The names that are not from other packages, in their order."""
        return tuple(self._built_in)

    def names(self) -> tuple[str, ...]:
        """Return every name: the built-in ones in their order, then those of other packages, sorted."""
        return tuple(self._claims)

    def require(self, name: str) -> str:
        """Return a name that is known; FEDFT-1010 lists those that are where it is not."""
        if name not in self._claims:
            raise FedftError(
                Code.UNKNOWN_NAME,
                f"no {self.what} is called {name!r}; known are {', '.join(self._claims)}",
                hint="correct the name, or install the package that provides it",
            )
        return name

    def get(self, name: str) -> T:
        """Return the thing of that name, imported at its first use.

        Raises:
            FedftError: FEDFT-1010 (unknown), FEDFT-1011 (the package that provides it cannot be imported, or
                gives something else), FEDFT-1012 (several packages claim the name).

        """
        if name not in self._loaded:
            self._loaded[name] = self._load(self._claims[self.require(name)])
        return self._loaded[name]

    @cached_property
    def _claims(self) -> dict[str, list[EntryPoint]]:
        claims = {
            name: [EntryPoint(name, reference, self.group)] for name, reference in self._built_in.items()
        }
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            claims.setdefault(point.name, []).append(point)
        return claims

    def _load(self, claims: list[EntryPoint]) -> T:
        point = claims[0]
        if len(claims) > 1:
            raise FedftError(
                Code.EXTENSION_CONFLICT,
                f"the {self.what} {point.name!r} is claimed by {', '.join(map(_package, claims))}",
                hint="uninstall all of these packages but one",
            )
        if point.dist is None:
            return cast("T", point.load())
        return self._foreign(point)

    def _foreign(self, point: EntryPoint) -> T:
        """Import another package's thing, whatever goes wrong in there."""
        claim = f"the package {_package(point)} offers the {self.what} {point.name!r} as {point.value}"
        try:
            thing: Any = point.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise FedftError(
                Code.EXTENSION_UNUSABLE,
                f"{claim}, which cannot be imported ({reason})",
                hint="repair that package",
            ) from error
        interface: Any = resolve_name(self._interface)
        if not (isinstance(thing, interface) or (isinstance(thing, type) and issubclass(thing, interface))):
            raise FedftError(
                Code.EXTENSION_UNUSABLE,
                f"{claim}, which is {type(thing).__name__}, not {interface.__name__}",
                hint="repair that package",
            )
        return cast("T", thing)


def _package(point: EntryPoint) -> str:
    return _OWN if point.dist is None else str(point.dist.name)
