"""Where a base model comes from: the bundled demo, a folder, an installed package, or the hub."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from fedft.errors import Code, FedftError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PACKAGE = "package:"


def resolve_source(source: str) -> str:
    """The folder of a model, or the hub id when the source is one.

    Args:
        source: "demo"; a folder; "package:MODULE/SUBFOLDER", a folder inside an installed Python
            package (which is not imported); or a hub id.

    Raises:
        FedftError: FEDFT-2001 nothing there.

    """
    if source == "demo":
        return str(Path(__file__).parent / "demo")
    if source.startswith(_PACKAGE):
        return str(_package_folder(source.removeprefix(_PACKAGE)))
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FedftError(
                Code.MODEL_NOT_FOUND, f"the folder {source} holds no config.json, so it is not a model"
            )
        return str(folder)
    if source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(source):
        raise FedftError(Code.MODEL_NOT_FOUND, f"there is no model folder {source} (looked in {Path.cwd()})")
    return source


def _package_folder(place: str) -> Path:
    module, _, subfolder = place.partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise FedftError(
            Code.MODEL_NOT_FOUND,
            f"the Python package {module!r} that model.source names is not installed",
            hint="install it into the environment that runs fedft",
        )
    folder = Path(spec.submodule_search_locations[0]) / subfolder
    if not (folder / "config.json").is_file():
        raise FedftError(
            Code.MODEL_NOT_FOUND, f"the package {module} has no model in its folder {subfolder!r}"
        )
    return folder
