"""Configurations to start from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal, get_args

from fedft.config.load import check, put
from fedft.config.render import to_toml

Template = Literal["demo", "sst2", "minimal", "private"]
TEMPLATES: tuple[Template, ...] = get_args(Template)

_ABOUT: dict[Template, str] = {
    "demo": "The demo: four clients, a small character-level model, generated word problems.",
    "sst2": "Sentiment classification: an encoder, SST-2 as TSV files, four clients with skewed labels.",
    "private": "Private classification by three sites: the head on frozen features, nothing left to tune.",
    "minimal": "The keys that nearly every run sets; every other key keeps its default.",
}
_HEAD = """\
# {about}
#
#   fedft config validate {path}   finds every mistake before anything is loaded
#   fedft config show {path}       prints the effective configuration, defaults included
#   fedft simulate {path}          runs it on this machine
#
# Relative data paths count from this file's folder.

"""


def template(name: Template, path: str = "FILE", changes: Mapping[str, Any] | None = None) -> str:
    """Return a template as commented TOML.

    Args:
        name: of the template.
        path: where the reader will find it.
        changes: dotted keys and values in place of the template's, or beside them.

    Raises:
        FedftError: FEDFT-1003, FEDFT-1004 for changes that are no configuration.

    """
    values = _values(name)
    for key, value in (changes or {}).items():
        put(values, key, value)
    only = values if name in ("minimal", "private") else None
    return _HEAD.format(about=_ABOUT[name], path=path) + to_toml(check(values), only=only)


def _values(name: Template) -> dict[str, Any]:
    return tomllib.loads(resources.files("fedft.config").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
