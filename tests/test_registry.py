"""Registries: built-in names, those of other packages through real entry points, and what goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fedft.errors import FedftError
from fedft.registry import Registry

GROUP = "fedft.test-numbers"
Install = Callable[[str, Mapping[str, str]], None]


def numbers() -> Registry[int]:
    """Numbers by name; what is there is looked up anew."""
    return Registry("number", GROUP, "builtins:int", {"maxsize": "sys:maxsize", "api": "sys:api_version"})


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package that consists of entry points alone."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(package: str, points: Mapping[str, str]) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in points.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines))

    return add


def test_built_in_names_come_first_and_are_imported_when_asked_for(install: Install) -> None:
    install("extra-numbers", {"zero": "sys:flags.verbose", "hexversion": "sys:hexversion"})
    registry = numbers()

    assert registry.names() == tuple(registry) == ("maxsize", "api", "hexversion", "zero")
    assert registry.get("maxsize") == sys.maxsize
    assert registry.get("hexversion") == sys.hexversion
    assert "zero" in registry
    assert "one" not in registry


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(FedftError, match=r"FEDFT-1010 no number is called 'pi'; known are maxsize, api"):
        numbers().get("pi")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:x", "cannot be imported .ModuleNotFoundError"),
        ("sys:no_such_number", "cannot be imported .AttributeError"),
        ("this is no reference", "cannot be imported"),
        ("sys:path", "which is list, not int"),
    ],
)
def test_a_broken_package_harms_its_own_name_alone(install: Install, value: str, reason: str) -> None:
    install("broken-numbers", {"broken": value})
    registry = numbers()

    assert registry.get("api") == sys.api_version
    with pytest.raises(
        FedftError, match=rf"FEDFT-1011 the package broken-numbers offers .*'broken'.*{reason}"
    ):
        registry.get("broken")


def test_a_name_that_two_packages_claim_cannot_be_used(install: Install) -> None:
    install("one-package", {"twice": "sys:maxsize", "maxsize": "sys:hexversion"})
    install("other-package", {"twice": "sys:maxsize"})
    registry = numbers()

    with pytest.raises(FedftError, match=r"FEDFT-1012 .*'twice' is claimed by o.*-package, o.*-package"):
        registry.get("twice")
    with pytest.raises(FedftError, match=r"FEDFT-1012 .*'maxsize' is claimed by fedft, one-package"):
        registry.get("maxsize")
    assert registry.get("api") == sys.api_version
