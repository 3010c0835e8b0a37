"""What a release is made of: every package at one version, known by its hashes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>\S+)", re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(file: str) -> dict[str, str]:
    found = PACKAGE.finditer((ROOT / file).read_text("utf-8").lower())
    return {normal(match["name"]): match["version"] for match in found}


def test_every_locked_package_has_hashes() -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / "requirements-locked.txt").read_text("utf-8"))
    packages = [block for block in blocks if not block.startswith("#")]
    assert len(packages) == len(pinned("requirements-locked.txt")) > 50
    without = [block for block in packages if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)]
    assert without == []


def test_the_lock_has_the_versions_that_are_tested() -> None:
    locked, tested = pinned("requirements-locked.txt"), pinned("constraints.txt")
    assert {name: locked[name] for name in locked if name in tested} == {
        name: tested[name] for name in tested if name in locked
    }


def test_the_lock_covers_what_fedft_requires() -> None:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    required = {normal(re.split(r"[\[<>=;]", line)[0].strip()) for line in lines if line.strip()}
    assert required <= set(pinned("requirements-locked.txt"))


def test_the_tools_of_a_release_are_pinned() -> None:
    lines = (ROOT / "requirements-tools.txt").read_text("utf-8").splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))
    assert {"cyclonedx-bom", "pip-audit"} <= set(pinned("requirements-tools.txt"))
