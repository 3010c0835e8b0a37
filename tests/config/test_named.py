"""Keys that name registered things, and those things' options."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from fedft.config.named import Named, OpenSection
from fedft.options import Options
from fedft.registry import Registry


class Sharpness(Options):
    grit: int = Field(400, ge=1, description="grains per inch")


class Knife:
    options = Sharpness


class Spoon:
    pass


TOOLS: Registry[object] = Registry(
    "tool",
    "fedft.test-tools",
    "builtins:object",
    {"knife": "tests.config.test_named:Knife", "spoon": "tests.config.test_named:Spoon"},
)


class Kitchen(OpenSection):
    tool: Annotated[str, Named(TOOLS, "none")] = Field("none", description="what is used")
    size: int = Field(1, description="of it")


def test_the_schema_lists_the_registry_s_names() -> None:
    assert Kitchen.model_json_schema()["properties"]["tool"]["enum"] == ["none", "knife", "spoon"]


def test_options_stand_beside_the_name_with_their_defaults() -> None:
    section = Kitchen.model_validate({"tool": "knife", "size": 2})

    assert section.options == Sharpness(grit=400)
    assert section.model_dump() == {"tool": "knife", "size": 2, "grit": 400}
    assert Kitchen.model_validate(section.model_dump()) == section
    assert Kitchen.model_validate({"tool": "knife", "grit": 8}).options.grit == 8


@pytest.mark.parametrize(
    ("table", "place", "message"),
    [
        ({"tool": "fork"}, "tool", "'none', 'knife' or 'spoon'"),
        ({"tool": "knife", "grit": 0}, "grit", "greater than or equal to 1"),
        ({"tool": "spoon", "grit": 8}, "grit", "not permitted"),
        ({"grit": 8}, "grit", "not permitted"),
    ],
)
def test_an_option_is_checked_by_its_owner(table: dict[str, object], place: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Kitchen.model_validate(table)

    (error,) = caught.value.errors()
    assert error["loc"] == (place,)
    assert message in error["msg"]


def test_the_schema_imports_no_model_library() -> None:
    """Names are checked without torch; only what a configuration names is imported, when it is checked."""
    code = "import sys, fedft.config; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
