"""The build back end: scikit-build-core, with an editable installation that is one plain path entry.

scikit-build-core's editable wheel puts an import hook before ``sys.path``, so that a second checkout named
in ``PYTHONPATH`` would be passed over without a word. Here the wheel's ``.pth`` file holds the checkout's
path alone and its hook is left out, so the import system's own order decides.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from scikit_build_core import build as _backend
from scikit_build_core.build import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from wheel.wheelfile import WheelFile

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
    """Build the editable wheel and return its file name (PEP 660)."""
    with tempfile.TemporaryDirectory() as folder:
        name = _backend.build_editable(folder, config_settings, metadata_directory)
        content = Path(folder) / "content"
        with WheelFile(Path(folder) / name) as wheel:
            wheel.extractall(content)
        for hook in content.glob("_editable_*"):
            hook.unlink()
        (content / "fedft.pth").write_text(f"{Path.cwd()}\n")
        (target := Path(wheel_directory) / name).unlink(missing_ok=True)
        with WheelFile(target, "w") as wheel:
            wheel.write_files(os.fspath(content))
    return name
