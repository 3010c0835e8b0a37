"""The build back end: scikit-build-core's, except that an editable installation is this folder on the path.

Its own editable installations find the packages before PYTHONPATH does, and miss files that are added later.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from scikit_build_core import build
from scikit_build_core.build import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Write a wheel (PEP 660) with the metadata and a path file; return its name."""
    name = build.build_editable(wheel_directory, config_settings, metadata_directory)
    wheel = Path(wheel_directory, name)
    with zipfile.ZipFile(wheel) as made:
        files = {each: made.read(each) for each in made.namelist() if ".dist-info/" in each}
    record = next(each for each in files if each.endswith("/RECORD"))
    del files[record]
    files["fedft.pth"] = f"{Path(__file__).parents[1]}\n".encode()
    lines = [f"{each},sha256={_digest(content)},{len(content)}" for each, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as plain:
        for each, content in files.items():
            plain.writestr(each, content)
    return name


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
