"""Loading a run configuration from TOML, with every mistake reported at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from fedft.config.schema import RunConfig
from fedft.config.validation import validate
from fedft.errors import Code, FedftError

_PATH_KEYS = (("model", "source"), ("data", "train"), ("data", "test"), ("data", "public"), ("store", "path"))


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read, override and check a run configuration.

    Args:
        source: path of a TOML file, or ``demo`` for the bundled demo configuration.
        overrides: dotted keys and their values, e.g. ``{"rounds.total": 3}``.

    Raises:
        FedftError: FEDFT-1001 no such file, FEDFT-1002 not TOML, FEDFT-1003 wrong values (all of them).

    """
    return check(read_table(source, overrides))


def read_table(source: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read and override a configuration without checking it; FEDFT-1001, FEDFT-1002, FEDFT-1004."""
    table, base = _read(source)
    for dotted, value in (overrides or {}).items():
        put(table, dotted, value)
    return _with_absolute_paths(table, base)


def check(table: Mapping[str, Any]) -> RunConfig:
    """Validate a nested table; FEDFT-1003 lists every mistake with its path, value and rule."""
    config, mistakes = validate(table)
    if config is None:
        head = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''} in the configuration"
        raise FedftError(Code.CONFIG_INVALID, "\n  ".join([f"{head}:", *map(str, mistakes)]))
    return config


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Turn ``a.b=value`` strings into dotted keys and TOML values; a bare word is a string."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, found, raw = pair.partition("=")
        if not found or not key.strip():
            raise FedftError(Code.OVERRIDE_INVALID, f"override {pair!r} is not of the form section.key=value")
        result[key.strip()] = parse_value(raw.strip())
    return result


def parse_value(raw: str) -> Any:
    """Read one TOML value; what TOML does not understand is taken as a string."""
    try:
        return tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return raw


def to_json(config: RunConfig) -> str:
    """Return the canonical JSON of a configuration: sorted keys, no spaces."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=32)
def from_json(text: str | bytes) -> RunConfig:
    """Inverse of :func:`to_json`; FEDFT-1003 when the text is not a valid configuration.

    A configuration cannot be changed, so a process validates the same text once and shares the result.
    """
    try:
        table = json.loads(text)
    except ValueError as error:
        raise FedftError(Code.CONFIG_SYNTAX, f"the configuration is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise FedftError(Code.CONFIG_SYNTAX, f"the configuration is a {type(table).__name__}, not a table")
    return check(table)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; FEDFT-1001 when it is missing, FEDFT-1002 when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FedftError(Code.CONFIG_UNREADABLE, f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FedftError(Code.CONFIG_SYNTAX, f"{path} is not valid TOML: {error}") from None


def _read(source: str | Path) -> tuple[dict[str, Any], Path]:
    if str(source) == "demo":
        text = resources.files("fedft.config").joinpath("demo.toml").read_text(encoding="utf-8")
        return tomllib.loads(text), Path.cwd()
    path = Path(source).expanduser().absolute()
    return read_toml(path), path.parent


def put(table: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a key of a nested table by its dotted name; FEDFT-1004 where a part of the name is no section."""
    *sections, key = dotted.split(".")
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise FedftError(Code.OVERRIDE_INVALID, f"override {dotted!r}: {section!r} is not a section")
        table = inner
    table[key] = value


def _with_absolute_paths(table: dict[str, Any], base: Path) -> dict[str, Any]:
    """Resolve relative paths against the configuration file's folder, so that a run can move process.

    A source that does not exist there is left alone: it may be a hub id, and if it is a mistake the
    loader says so. The store's folder is relative to the working directory, where the user stands.
    """
    for section, key in _PATH_KEYS:
        inner = table.get(section)
        value = inner.get(key) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or not isinstance(value, str) or not value:
            continue
        if section == "store":
            inner[key] = str(Path(value).expanduser().absolute())
        elif any(base.glob(value)) if "*" in value and not value.startswith("/") else (base / value).exists():
            inner[key] = str((base / value).absolute())
    return table
