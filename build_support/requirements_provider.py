"""Gives the build back end the dependencies, which stand in requirements files (see pyproject.toml)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dynamic fields of ``[project]``."""
    return {
        "dependencies": _lines("requirements.txt"),
        "optional-dependencies": {"dev": _lines("requirements-dev.txt")},
    }


def _lines(name: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in Path(name).read_text().splitlines())
    return [line for line in lines if line]
