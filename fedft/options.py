"""Options of registered things: schemas, so that a configuration can be checked, shown and documented."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A closed set of keys with types, ranges and descriptions; values do not change after loading.

    A registered thing that can be configured names a subclass as its ``options``. Its keys then stand in the
    configuration's section beside the key that names the thing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


class NoOptions(Options):
    """Of a thing that cannot be configured."""


NO_OPTIONS = NoOptions()
