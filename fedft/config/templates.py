"""Configurations to start from."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any, Literal, get_args

from fedft.config.load import check
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


def template(name: Template, path: str = "FILE") -> str:
    """Return a template as commented TOML; ``path`` is where the reader will find it."""
    values = _values(name)
    only = values if name in ("minimal", "private") else None
    return _HEAD.format(about=_ABOUT[name], path=path) + to_toml(check(values), only=only)


def _values(name: Template) -> dict[str, Any]:
    return tomllib.loads(resources.files("fedft.config").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
